//! `cargo xtask package`: Debian packages, in `target/debian`. Of the same programs and sources they are the same bytes.
//!
//! Knows what belongs to a package and how its parts are made; what they say and do when they are installed is in
//! `packaging/`, and the Proxmox plugin builds its own.

mod changelog;
mod contents;
mod control;
mod manual;
mod moment;
mod third_parties;
mod tree;
mod trial;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::process::run;
use crate::programs::{self, ATTACH, CINDER_API, PRODUCT, Profile};
use crate::{campaigns, debian, workspace};

use contents::{CINDER, Contents, STORAGED};
use moment::Moment;
use tree::Tree;
pub(crate) use trial::trial;

/// What is built, and of what.
#[derive(Args)]
pub(crate) struct Options {
    /// Which ones; all if none is named.
    names: Vec<Name>,
    /// Take the programs that are there already, instead of building them for release.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// What the packages' version is, instead of the workspace's.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Where the packages are put. [default: target/debian]
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// Compress little, for trials: the packages are larger, and made in seconds.
    #[arg(long)]
    quick: bool,
}

/// The packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// `storaged`: the daemon, its command line, vhost-blk and the gateways.
    Storaged,
    /// `storaged-cinder-api`: OpenStack's Block Storage API.
    CinderApi,
    /// `storaged-pve`: the plugin of Proxmox VE.
    Proxmox,
}

impl Name {
    /// How many there are.
    const ALL: usize = 3;
}

/// Builds packages, and prints where each is.
pub(crate) fn package(options: &Options) -> Result<()> {
    let into = options
        .into
        .clone()
        .unwrap_or_else(|| workspace::target().join("debian"));
    std::fs::create_dir_all(&into).with_context(|| format!("make {}", into.display()))?;
    let names = if options.names.is_empty() {
        Name::value_variants()
    } else {
        &options.names
    };
    for name in names {
        let contents = match name {
            Name::Storaged => STORAGED,
            Name::CinderApi => CINDER,
            Name::Proxmox => {
                campaigns::package_proxmox(&into, Moment::of_sources()?.seconds())?;
                continue;
            }
        };
        let path = build(contents, options, &into)?;
        println!("{}", path.display());
    }
    Ok(())
}

/// The packages of programs that are there, made quickly, for trials.
pub(crate) fn quickly(programs: &Path, into: &Path) -> Result<()> {
    package(&Options {
        names: vec![Name::Storaged, Name::CinderApi, Name::Proxmox],
        programs: Some(programs.to_owned()),
        version: None,
        into: Some(into.to_owned()),
        quick: true,
    })
}

/// Where the programs are: those that were named, or those that are built now.
fn programs(options: &Options) -> Result<PathBuf> {
    if let Some(folder) = &options.programs {
        return std::path::absolute(folder).with_context(|| format!("{} is no folder", folder.display()));
    }
    programs::build(Profile::Release, &[PRODUCT, &[ATTACH, CINDER_API]].concat())
}

/// Puts a package together. The answer is where it is.
fn build(contents: &Contents, options: &Options, into: &Path) -> Result<PathBuf> {
    debian::ensure(debian::PACKAGING)?;
    let programs = programs(options)?;
    let version = options.version.as_deref().unwrap_or(env!("CARGO_PKG_VERSION"));
    let moment = Moment::of_sources()?;
    let mut tree = Tree::new()?;
    let installed = contents.install_programs(&mut tree, &programs)?;
    contents.install_files(&mut tree)?;
    contents.install_documents(&mut tree, &programs, version, moment)?;
    let control = control::fill(contents, &tree, &installed, version)?;
    contents.install_scripts(&mut tree, &control)?;
    tree.finish(moment)?;
    let architecture = control::architecture()?;
    let path = into.join(format!("{}_{version}_{architecture}.deb", contents.name));
    let mut command = Command::new("dpkg-deb");
    // With one thread, for several of them make other bytes of it.
    let compression: &[&str] = if options.quick {
        &["-Zgzip", "-z1"]
    } else {
        &["-Zxz", "--threads-max=1"]
    };
    command
        .args(["--root-owner-group", "--uniform-compression"])
        .args(compression)
        .arg("--build")
        .args([tree.path(), &path])
        .env("SOURCE_DATE_EPOCH", moment.seconds().to_string());
    run(&mut command)?;
    Ok(path)
}
