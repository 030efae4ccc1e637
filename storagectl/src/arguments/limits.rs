//! The limits of a volume, as options of commands.

use admin_api::limits::VolumeLimits;
use admin_api::sizes::{SizeError, parse_size};
use clap::Args;

/// How much of a volume may be asked for in a second.
#[derive(Args)]
pub(crate) struct LimitArguments {
    /// The most operations a second, reads and writes together.
    #[arg(long, value_name = "N")]
    total_iops: Option<u64>,
    /// The most reads a second.
    #[arg(long, value_name = "N")]
    read_iops: Option<u64>,
    /// The most writes a second.
    #[arg(long, value_name = "N")]
    write_iops: Option<u64>,
    /// The most bytes a second, read and written together: 100M.
    #[arg(long, value_name = "SIZE")]
    total_bytes: Option<String>,
    /// The most bytes read a second.
    #[arg(long, value_name = "SIZE")]
    read_bytes: Option<String>,
    /// The most bytes written a second.
    #[arg(long, value_name = "SIZE")]
    write_bytes: Option<String>,
    /// How many operations may begin at once after a rest; unless told, a tenth of --total-iops.
    #[arg(long, value_name = "N")]
    total_iops_max: Option<u64>,
    /// The same of reads.
    #[arg(long, value_name = "N")]
    read_iops_max: Option<u64>,
    /// The same of writes.
    #[arg(long, value_name = "N")]
    write_iops_max: Option<u64>,
    /// How many bytes may be asked for at once after a rest; unless told, a tenth of --total-bytes.
    #[arg(long, value_name = "SIZE")]
    total_bytes_max: Option<String>,
    /// The same of bytes read.
    #[arg(long, value_name = "SIZE")]
    read_bytes_max: Option<String>,
    /// The same of bytes written.
    #[arg(long, value_name = "SIZE")]
    write_bytes_max: Option<String>,
    /// Count an operation of more bytes as several of so many: 16K.
    #[arg(long, value_name = "SIZE")]
    iops_size: Option<String>,
}

impl LimitArguments {
    /// What was said, in the words of the API.
    pub(crate) fn limits(&self) -> Result<VolumeLimits, SizeError> {
        let bytes = |size: &Option<String>| size.as_deref().map(parse_size).transpose();
        Ok(VolumeLimits {
            total_iops_sec: self.total_iops,
            read_iops_sec: self.read_iops,
            write_iops_sec: self.write_iops,
            total_bytes_sec: bytes(&self.total_bytes)?,
            read_bytes_sec: bytes(&self.read_bytes)?,
            write_bytes_sec: bytes(&self.write_bytes)?,
            total_iops_sec_max: self.total_iops_max,
            read_iops_sec_max: self.read_iops_max,
            write_iops_sec_max: self.write_iops_max,
            total_bytes_sec_max: bytes(&self.total_bytes_max)?,
            read_bytes_sec_max: bytes(&self.read_bytes_max)?,
            write_bytes_sec_max: bytes(&self.write_bytes_max)?,
            size_iops_sec: bytes(&self.iops_size)?,
        })
    }
}
