//! A disk with an interpreter and the packages of Nova's environment, os-brick among them, for a guest that has none.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use test_openstack::Environment;
use vm_tests::image::libraries_of;
use vm_tests::packages;
use vm_tests::staging::{copy, make_disk};

/// What os-brick is told by.
const SCRIPT: &str = include_str!("brick.py");
/// Bytes of the disk: the packages are some 250 MB.
const DISK: &str = "900M";
/// Parts of the interpreter's library that nothing here imports: what is installed beside it may be gigabytes.
const LEFT_OUT: &[&str] = &[
    "site-packages",
    "dist-packages",
    "test",
    "idlelib",
    "tkinter",
    "ensurepip",
];
/// The interpreter, where its library is, and the library's name.
const PLACES: &str =
    "import sys, sysconfig; print(sys._base_executable); print(sysconfig.get_path('stdlib'))";

/// Makes the disk: `/home` has Python, `/packages` what it imports, `/lib` the libraries of both, `/sg` sg3-utils, `/brick.py`.
pub(super) fn make(disk: &Path) -> Result<()> {
    let environment = Environment::of("nova")?;
    let staging = disk.with_extension("folder");
    fs::create_dir_all(staging.join("home/bin"))?;
    fs::create_dir_all(staging.join("home/lib"))?;
    fs::create_dir_all(staging.join("lib"))?;
    let said = environment.run("python", ["-c", PLACES], &staging)?;
    let (interpreter, library) = said.trim().split_once('\n').context("Python names no places")?;
    let interpreter = fs::canonicalize(interpreter)?;
    let library = Path::new(library);
    fs::copy(&interpreter, staging.join("home/bin/python"))?;
    let name = library.file_name().context("a library has a name")?;
    let home = staging.join("home/lib").join(name);
    fs::create_dir(&home)?;
    for entry in fs::read_dir(library)? {
        let name = entry?.file_name();
        if !LEFT_OUT.iter().any(|left_out| name == *left_out) {
            copy(&library.join(&name), &home.join(&name))?;
        }
    }
    copy(&environment.packages()?, &staging.join("packages"))?;
    fs::write(staging.join("brick.py"), SCRIPT)?;
    for (name, file) in libraries(&interpreter, &staging)? {
        fs::copy(&file, staging.join("lib").join(name))?;
    }
    // os-brick asks it which unit of which host a disk is.
    let library = packages::dependency("sg3-utils", "libsgutils2")?;
    for package in ["sg3-utils", &library] {
        packages::unpack(package, &staging.join("sg")).with_context(|| format!("fetch {package}"))?;
    }
    make_disk(&staging, disk, DISK)
}

/// What the interpreter and the modules beside it need, by name. The interpreter's own library is the one that it is linked
/// with: a module may name another one of that name, which this machine has for other interpreters.
fn libraries(interpreter: &Path, staging: &Path) -> Result<BTreeMap<OsString, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut take = |file: &Path| -> Result<()> {
        // Where nothing is yet: each is looked for where it says itself.
        for library in libraries_of(file, staging)? {
            // Those of wheels lie beside their modules, which find them there.
            if let Some(name) = library.file_name().filter(|_| !library.starts_with(staging)) {
                found.entry(name.to_owned()).or_insert_with(|| library.clone());
            }
        }
        Ok(())
    };
    take(interpreter)?;
    let mut folders = vec![staging.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "so") {
                take(&path)?;
            }
        }
    }
    Ok(found)
}
