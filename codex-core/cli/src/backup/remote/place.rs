//! The place of backups outside of the machine, and the options that lead to it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use codex_core::remote::{Folder, S3Options, Target};

use crate::Outcome;
use crate::failure::Failure;

/// A place outside of the machine, and the way to it.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// A folder, such as one of another disk, or `s3://BUCKET/PREFIX`. Each store needs its own. The
    /// keys of a bucket are those in `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`
    #[arg(value_name = "PLACE", id = "place")]
    pub(super) name: String,
    /// The address of the server of the bucket. The default is that in `AWS_ENDPOINT_URL`, else
    /// that of Amazon S3
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// The region of the bucket. The default is that in `AWS_REGION`, else us-east-1
    #[arg(long)]
    region: Option<String>,
    /// A file with the keys of the bucket, such as ~/.aws/credentials
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// A file with the certificates of the authorities to trust, in PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Allow a server without encryption on the way
    #[arg(long)]
    plain_http: bool,
}

impl Place {
    /// Opens the place. Of a bucket it is proved that it creates objects only once.
    pub(super) fn open(&self) -> Outcome<Arc<dyn Target>> {
        let Some(rest) = self.name.strip_prefix("s3://") else {
            let is_of_bucket = self.endpoint.is_some()
                || self.region.is_some()
                || self.keys_file.is_some()
                || self.ca_file.is_some();
            if is_of_bucket {
                let text = "the place is a folder, and the options are those of a bucket; name a \
                            bucket as s3://BUCKET/PREFIX";
                return Err(Failure::Usage(text.to_owned()));
            }
            return Ok(Arc::new(Folder::open(&self.name)?));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let region = self.region.clone().or_else(|| set("AWS_REGION"));
        let region = region.or_else(|| set("AWS_DEFAULT_REGION"));
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = self.endpoint.clone().or_else(|| set("AWS_ENDPOINT_URL"));
        let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let options = S3Options::new(endpoint, bucket).region(region);
        let options = options.prefix(prefix.trim_end_matches('/')).plain_http(self.plain_http);
        let options = match &self.keys_file {
            Some(file) => options.keys_file(file),
            None => options,
        };
        let options = match &self.ca_file {
            Some(file) => options.ca_file(file),
            None => options,
        };
        Ok(Arc::new(options.open()?))
    }
}
