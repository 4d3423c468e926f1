//! The manifest: which images of a place count. Its layout stands in `docs/FORMAT.md`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Image;
use super::fault::Fault;
use super::piece::{LogId, LogStart};
use crate::inspect::Facts;
use crate::text::{hex, unhex};

/// One version of the list of images.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Manifest {
    /// The number, which is part of its name; 0 before the first one.
    pub(super) number: u64,
    /// The id of the archive that began last.
    pub(super) writer: Option<[u8; 16]>,
    /// The images, newest first.
    pub(super) images: Vec<Image>,
    /// The names of images that this manifest gives up. Their objects may be removed at any time.
    pub(super) dropped: Vec<String>,
}

impl Manifest {
    /// Returns the name of the manifest of this number.
    pub(super) fn name(number: u64) -> String {
        format!("{MANIFESTS}{number:020}")
    }

    /// Returns the number of the manifest with this name.
    pub(super) fn number(name: &str) -> Option<u64> {
        let digits = name.strip_prefix(MANIFESTS)?;
        let number = digits.parse().ok()?;
        (Self::name(number) == name).then_some(number)
    }

    /// Returns whether the image `name` is listed.
    pub(super) fn lists(&self, name: &str) -> bool {
        self.images.iter().any(|image| image.name == name)
    }

    /// Returns whether an image may have this name.
    pub(super) fn is_image(name: &str) -> bool {
        let parts = name.strip_prefix(IMAGES).and_then(|rest| rest.split_once('-'));
        let seq_and_id = parts.and_then(|(seq, id)| Some((seq.parse().ok()?, id_of(id)?)));
        seq_and_id.is_some_and(|(seq, id)| image_name(seq, id) == name)
    }

    /// Returns the bytes of the object.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut record = Record {
            format: format!("{FORMAT}{VERSION}"),
            number: self.number,
            writer: self.writer.map(|id| hex(&id)),
            images: self.images.iter().map(Entry::of).collect(),
            dropped: self.dropped.clone(),
            crc32c: String::new(),
        };
        // The checksum covers the text with an empty checksum, which has the same layout.
        record.crc32c = format!("{:08x}", crc32c::crc32c(&json(&record)));
        json(&record)
    }

    /// Decodes the manifest of this number.
    pub(super) fn decode(number: u64, bytes: &[u8]) -> Result<Self, Fault> {
        let any: Value = serde_json::from_slice(bytes).map_err(|_| bad("it is malformed"))?;
        let format = any.get("format").and_then(Value::as_str).unwrap_or_default();
        let version = format.strip_prefix(FORMAT).ok_or(bad("it has another format"))?;
        if version != VERSION {
            return Err(Fault::NewerFormat);
        }
        let record: Record = serde_json::from_value(any).map_err(|_| bad("it is malformed"))?;
        let images: Option<Vec<_>> = record.images.into_iter().map(Entry::image).collect();
        let images = images.ok_or(bad("it is malformed"))?;
        let writer = match record.writer {
            Some(id) => Some(id_of(&id).ok_or(bad("it is malformed"))?),
            None => None,
        };
        let manifest = Self { number: record.number, writer, images, dropped: record.dropped };
        // Encoding is deterministic, so equal bytes prove the checksum and the layout.
        if manifest.encode() != bytes {
            return Err(bad("it fails its checksum"));
        }
        // Only the names of images may be read and removed on the word of a manifest.
        let names = manifest.images.iter().map(|image| &image.name).chain(&manifest.dropped);
        if manifest.number != number || !names.into_iter().all(|name| Self::is_image(name)) {
            return Err(bad("it names other objects"));
        }
        Ok(manifest)
    }
}

/// Returns the name of a new image of the version `seq`. `id` is random, so that no name is ever
/// given twice.
pub(super) fn image_name(seq: u64, id: [u8; 16]) -> String {
    format!("{IMAGES}{seq:020}-{}", hex(&id))
}

/// Returns the id in a text of 32 hexadecimal digits.
fn id_of(text: &str) -> Option<[u8; 16]> {
    unhex(text)?.try_into().ok()
}

/// Returns a record as JSON that a person can read, with a newline at the end.
#[expect(clippy::expect_used, reason = "no map with other keys than strings, no I/O")]
fn json(record: &Record) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(record).expect("strings and numbers are JSON");
    text.push(b'\n');
    text
}

fn bad(why: &'static str) -> Fault {
    Fault::BadManifest(why)
}

/// The fields of a manifest, in the order in which they are written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: String,
    number: u64,
    writer: Option<String>,
    images: Vec<Entry>,
    dropped: Vec<String>,
    crc32c: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    id: String,
    seq: u64,
    mark: String,
    time_us: Option<i64>,
    form: String,
    encrypted: bool,
    read_only: bool,
    bytes: u64,
    sha256: String,
    listed_us: i64,
    log: Option<String>,
    log_from: u64,
}

impl Entry {
    fn of(image: &Image) -> Self {
        let facts = &image.facts;
        Self {
            name: image.name.clone(),
            id: hex(&facts.id),
            seq: facts.seq,
            mark: hex(&facts.mark),
            time_us: facts.time_us,
            form: facts.form.clone(),
            encrypted: facts.encrypted,
            read_only: facts.frozen,
            bytes: facts.size,
            sha256: hex(&image.sha256),
            listed_us: image.listed_us,
            log: image.log.map(|start| start.log.name()),
            log_from: image.log.map_or(0, |start| start.from),
        }
    }

    /// Returns the image, or `None` if a field is not what its name promises.
    fn image(self) -> Option<Image> {
        let facts = Facts {
            mark: unhex(&self.mark)?,
            time_us: self.time_us,
            form: self.form,
            encrypted: self.encrypted,
            frozen: self.read_only,
            size: self.bytes,
            ..Facts::new(unhex(&self.id)?, self.seq)
        };
        let sha256 = unhex(&self.sha256)?.try_into().ok()?;
        let log = match self.log {
            Some(name) => Some(LogStart { log: LogId::parse(&name)?, from: self.log_from }),
            None => None,
        };
        Some(Image { name: self.name, facts, sha256, listed_us: self.listed_us, log })
    }
}

/// The beginning of the names of manifests.
pub(super) const MANIFESTS: &str = "manifest/";
/// The beginning of the names of images.
pub(super) const IMAGES: &str = "image/";
const FORMAT: &str = "codexdb manifest ";
const VERSION: &str = "1";

#[cfg(test)]
mod tests {
    use super::*;

    /// A text that is never made again. Its checksum was computed by another program.
    const GOLDEN: &str = r#"{
  "format": "codexdb manifest 1",
  "number": 3,
  "writer": "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
  "images": [
    {
      "name": "image/00000000000000000007-02020202020202020202020202020202",
      "id": "09090909090909090909090909090909",
      "seq": 7,
      "mark": "0303030303030303",
      "time_us": -5,
      "form": "wal",
      "encrypted": true,
      "read_only": true,
      "bytes": 700,
      "sha256": "0808080808080808080808080808080808080808080808080808080808080808",
      "listed_us": 11,
      "log": "LOG",
      "log_from": 512
    },
    {
      "name": "image/00000000000000000007-01010101010101010101010101010101",
      "id": "09090909090909090909090909090909",
      "seq": 7,
      "mark": "0303030303030303",
      "time_us": -5,
      "form": "wal",
      "encrypted": true,
      "read_only": true,
      "bytes": 700,
      "sha256": "0808080808080808080808080808080808080808080808080808080808080808",
      "listed_us": 11,
      "log": null,
      "log_from": 0
    }
  ],
  "dropped": [
    "image/00000000000000000004-04040404040404040404040404040404"
  ],
  "crc32c": "ca438414"
}
"#;

    #[test]
    fn a_manifest_has_the_text_of_the_format() {
        let log = LogId { base_seq: 7, file_id: [0xab; 16], follows: [1; 16] };
        let facts = Facts {
            mark: vec![3; 8],
            time_us: Some(-5),
            form: "wal".to_owned(),
            encrypted: true,
            frozen: true,
            size: 700,
            ..Facts::new([9; 16], 7)
        };
        let image = |id, log| Image {
            name: image_name(7, [id; 16]),
            facts: facts.clone(),
            sha256: [8; 32],
            listed_us: 11,
            log,
        };
        let images = vec![image(2, Some(LogStart { log, from: 512 })), image(1, None)];
        let dropped = vec![image_name(4, [4; 16])];
        let manifest = Manifest { number: 3, writer: Some([0xcd; 16]), images, dropped };
        let golden = GOLDEN.replace(
            "LOG",
            "00000000000000000007-abababababababababababababababab-\
             01010101010101010101010101010101",
        );
        assert_eq!(String::from_utf8(manifest.encode()).unwrap(), golden);
        assert_eq!(Manifest::decode(3, golden.as_bytes()).unwrap(), manifest);
        let before = Manifest { writer: None, ..manifest };
        assert_eq!(Manifest::decode(3, &before.encode()).unwrap(), before);
    }
}
