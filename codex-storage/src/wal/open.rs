//! Opening a Wal: reading its files into a state, and returning a storage that continues it.

use super::segments::{Replay, Segment, Segments};
use super::start::Start;
use super::{Earlier, Wal};
use crate::config::{Access, Config};
use crate::error::Result;
use crate::files::StoreFiles;
use crate::follow::Follower;
use crate::history::{History, LazyDigest};
use crate::image::ImageReader;
use crate::live::Announcer;
use crate::log::{LogCounts, LogState};
use crate::open::replay_image;
use crate::read_only::ReadOnly;
use crate::storage::{OpSink, Recovered, Storage, StorageStats};
use crate::write_state::WriteState;

impl Wal {
    /// Opens the store whose image is `image`: reads the image and the segments that continue it.
    /// If the store is opened for writing, the commits that were read are then made durable.
    pub(crate) fn open(
        files: StoreFiles,
        config: &Config,
        image: &ImageReader,
        sink: &mut OpSink<'_>,
    ) -> Result<(Box<dyn Storage>, Recovered)> {
        let (path, header) = (files.path(), image.header());
        let segments = if files.names.is_backup() {
            Segments::default()
        } else {
            Segments::find(&files, header)?
        };
        // Order: the image, then the segments from the oldest on, as they were committed.
        let (mut history, mut watch) = replay_image(config, &path, image, sink)?;
        segments.begin_at(&files, header)?;
        if config.access == Access::Follow {
            let newest = segments.newest_us(header);
            let follower = Follower::after_image(&files, image.file(), header, segments.live)?;
            return follower.open(files, header.clone(), history, watch, newest, sink);
        }
        let mut replay = Replay::new(sink, &mut watch, &path);
        let mut states = segments.read(&files, config.on_damage, &mut replay)?;
        let replayed = replay.commits;
        // Only the last segment can have a tail to cut, so its findings are those of the store.
        let last = states.pop();
        if let Some(LogState { end, .. }) = &last {
            history.go_on(end.seq, end.digest);
        }
        let anchor = watch.end(&mut history, &path)?;
        history.list(history.end());
        let found = segments.recovered(&files, history.seq(), last.as_ref());
        let found = Recovered { newest_us: segments.newest_us(header), replayed, anchor, ..found };
        // Each segment except the last has a state here.
        let earlier = segments.live.iter().zip(&states).map(|(of, state)| Earlier::of(of, state));
        if config.access == Access::ReadOnly {
            return Ok(read_only(files, image, history, found, states.iter().chain(&last)));
        }
        let mut wal = Self {
            live: Announcer::new(&files),
            files,
            write_state: WriteState::new(&path),
            durability: config.durability,
            policy: config.checkpoint,
            image: header.clone(),
            image_bytes: image.len(),
            // A placeholder until `ready` has looked at the segments.
            start: Start::Attach,
            current: None,
            earlier: earlier.collect(),
            leftovers: segments.leftovers,
            image_is_named: false,
            stray: segments.stray,
            lost: None,
            pending: None,
            retired: None,
            retry_at_bytes: 0,
            digest: LazyDigest::new(history.end().digest),
            seq: history.seq(),
            durable: history.seq(),
            history,
            past: LogCounts::default(),
            images: 0,
            images_failed: 0,
        };
        wal.start = wal.ready(&segments.live, last.as_ref())?;
        // The recovery has made commits durable that nothing else shows to be.
        wal.announce();
        Ok((Box::new(wal), found))
    }
}

impl Earlier {
    /// Returns a complete segment that was read up to `state`.
    fn of(segment: &Segment, state: &LogState) -> Self {
        Self { generation: segment.header.generation, bytes: state.end.offset }
    }
}

/// Returns the storage of a Wal that was read, and will not be written. `logs` has the findings for
/// its segments.
fn read_only<'a>(
    files: StoreFiles,
    image: &ImageReader,
    history: History,
    found: Recovered,
    logs: impl Iterator<Item = &'a LogState>,
) -> (Box<dyn Storage>, Recovered) {
    let stats = StorageStats {
        seq: found.seq,
        durable: found.durable,
        image_bytes: image.len(),
        log_bytes: logs.map(|state| state.end.offset).sum(),
        ..StorageStats::default()
    };
    (Box::new(ReadOnly::new(files, image.header().clone(), history, stats)), found)
}
