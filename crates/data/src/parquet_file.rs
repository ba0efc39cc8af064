//! How every Parquet file of ours is written.

use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};

use crate::error::Result;

/// Compressed and signed; what a file needs beside that its writer adds.
pub(crate) fn properties() -> Result<WriterPropertiesBuilder> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_created_by("tidemill".to_owned()))
}
