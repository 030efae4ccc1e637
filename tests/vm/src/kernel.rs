//! The guest's kernel: the file that QEMU boots, and the modules that it needs, in the order in which
//! they can be loaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The modules that all guests load; those that they depend on come by themselves, those that are part
/// of the kernel's image are left out.
pub const WANTED: &[&str] = &[
    "crc32c_intel",
    "crc32c_generic",
    "virtio_pci",
    "virtio_blk",
    "ext4",
    "xfs",
];
/// What hosts of a storage network load besides.
pub const WANTED_BY_HOSTS: &[&str] = &[
    "virtio_net",
    "iscsi_tcp",
    "sd_mod",
    "dm_multipath",
    "dm_service_time",
    "scsi_dh_alua",
    "nbd",
];

/// An unpacked kernel package.
pub struct Kernel {
    /// The file that QEMU boots.
    pub image: PathBuf,
    modules: BTreeMap<String, PathBuf>,
}

impl Kernel {
    /// Looks through a folder into which a kernel package was unpacked.
    pub fn find(folder: &Path) -> Result<Self> {
        let image = fs::read_dir(folder.join("boot"))?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| name_of(path).starts_with("vmlinuz-"))
            .context("the kernel package has no kernel")?;
        let mut modules = BTreeMap::new();
        collect(&folder.join("lib/modules"), &mut modules)?;
        Ok(Self { image, modules })
    }

    /// The modules to load, each after those that it depends on: name and file.
    pub fn load_order(&self, wanted: &[&str]) -> Result<Vec<(String, PathBuf)>> {
        let mut order = Vec::new();
        for name in wanted {
            self.add(name, &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<(String, PathBuf)>) -> Result<()> {
        let Some(file) = self.modules.get(name) else {
            return Ok(());
        };
        if order.iter().any(|(known, _)| known == name) {
            return Ok(());
        }
        let content = fs::read(file).with_context(|| format!("read module {}", file.display()))?;
        for needed in dependencies(&content) {
            self.add(&needed, order)?;
        }
        order.push((name.to_owned(), file.clone()));
        Ok(())
    }
}

/// What a module says of itself in its section `.modinfo`: `depends=a,b`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = &module[at + KEY.len()..];
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(normal)
        .collect()
}

/// File names use dashes where module names use underscores.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn collect(folder: &Path, modules: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            collect(&path, modules)?;
        } else if let Some(name) = name_of(&path).strip_suffix(".ko") {
            modules.insert(normal(name), path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Dependencies are read from the modules themselves, since nothing was installed or indexed.
    use super::*;

    #[test]
    fn modules_are_loaded_after_those_that_they_depend_on() {
        let folder = tempfile::tempdir().unwrap();
        let modules = folder.path().join("lib/modules/6.1/kernel");
        fs::create_dir_all(&modules).unwrap();
        fs::create_dir_all(folder.path().join("boot")).unwrap();
        fs::write(folder.path().join("boot/vmlinuz-6.1"), b"").unwrap();
        fs::write(
            modules.join("ext4.ko"),
            b"ELF\0license=GPL\0depends=jbd2,mb-cache,not_there\0",
        )
        .unwrap();
        fs::write(modules.join("jbd2.ko"), b"ELF\0depends=\0").unwrap();
        fs::write(modules.join("mb-cache.ko"), b"ELF\0depends=jbd2\0").unwrap();
        let order = Kernel::find(folder.path()).unwrap().load_order(WANTED).unwrap();
        let names: Vec<&str> = order.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["jbd2", "mb_cache", "ext4"]);
    }
}
