//! A time series: readings of sensors, queries by time, and the removal of old readings.
use codex_core::{Result, Store};

#[derive(Clone)]
struct Series(Store);

impl Series {
    /// Adds readings of one sensor, at times in milliseconds, in one commit.
    fn add(&self, sensor: &str, readings: impl IntoIterator<Item = (u64, f64)>) -> Result<()> {
        let mut batch = self.0.batch();
        for (time, value) in readings {
            batch.set(key(sensor, time), &value)?;
        }
        batch.commit().map(drop)
    }

    /// Returns the mean from one time to another, which is not included, if there are readings.
    fn mean(&self, sensor: &str, from: u64, to: u64) -> Result<Option<f64>> {
        let (mut sum, mut count) = (0.0, 0.0);
        for entry in self.0.range(key(sensor, from)..key(sensor, to)) {
            sum += entry.value::<f64>()?;
            count += 1.0;
        }
        Ok((count > 0.0).then_some(sum / count))
    }

    fn newest(&self, sensor: &str) -> Result<Option<f64>> {
        let newest = self.0.last(key(sensor, 0)..=key(sensor, u64::MAX));
        newest.map(|entry| entry.value()).transpose()
    }

    /// Removes the readings of one sensor before a time, and returns their number.
    fn forget(&self, sensor: &str, before: u64) -> Result<u64> {
        self.0.remove_range(key(sensor, 0)..key(sensor, before))
    }
}

/// The name, a zero byte, the time: one sensor after another, each in the order of time.
#[allow(clippy::big_endian_bytes, reason = "the order of the bytes is the order of the numbers")]
fn key(sensor: &str, time: u64) -> Vec<u8> {
    [sensor.as_bytes(), &[0], &time.to_be_bytes()].concat()
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let series = Series(Store::open(folder.path().join("series.db"))?);
    // Threads that write at the same time share one sync.
    std::thread::scope(|scope| {
        for sensor in ["roof", "roof2", "cellar", "garden"] {
            let readings = (0..1_000_u32).map(|n| (u64::from(n) * 1_000, f64::from(n)));
            let series = &series;
            scope.spawn(move || series.add(sensor, readings).expect("the disk is healthy"));
        }
    });
    assert_eq!(series.0.len(), 4_000);
    assert_eq!(series.mean("roof", 10_000, 13_000)?, Some(11.0));
    assert_eq!(series.mean("attic", 0, u64::MAX)?, None);
    assert_eq!(series.newest("cellar")?, Some(999.0));
    assert_eq!(series.forget("roof", 900_000)?, 900);
    assert_eq!(series.0.len(), 3_100);
    Ok(())
}
