//! `cargo image`: builds the image, and media from it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use image::build::{self, Places};
use image::{check, media};

/// Builds what Holdfast's machines boot.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Order>,
}

#[derive(Subcommand)]
enum Order {
    /// Build the image (the default).
    Build,
    /// Build the image twice, and compare every byte.
    Repeat,
    /// Write the gateway's boot disk, with a site's configuration and key, and with all that its nodes boot.
    GatewayDisk(Site),
    /// Write the boot disk (a USB stick, or any other) of nodes that do not boot from the network.
    NodeDisk(Site),
    /// Write the volume of the VM files from a directory.
    Shared {
        /// The directory.
        directory: PathBuf,
        /// The volume to write.
        #[arg(long)]
        out: PathBuf,
    },
}

/// What a disk for a site is made of, and where it goes.
#[derive(Args)]
struct Site {
    /// The cluster.toml.
    #[arg(long)]
    cluster: PathBuf,
    /// The secrets.toml; of it a node's disk has the gateway's public key only.
    #[arg(long)]
    secrets: PathBuf,
    /// The disk that this one replaces, or a copy of it: what the machine has kept there (the gateway its claims and whom it has let
    /// in, a node who it is) is taken along.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// The disk image to write.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> Result<()> {
    let places = Places::find()?;
    match Arguments::parse().command.unwrap_or(Order::Build) {
        Order::Build => {
            let mut text = String::new();
            for part in build::build(&places)? {
                text.push_str(&format!("{:<44} {:>6.2} MB\n", part.name, kilobytes(part.bytes) / 1000.0));
            }
            Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
        }
        Order::Repeat => {
            let again = Places { out: places.out.with_extension("again"), ..places.clone() };
            build::build(&places)?;
            build::build(&again)?;
            check::same(&places.out, &again.out)?;
            Ok(std::fs::remove_dir_all(&again.out)?)
        }
        Order::GatewayDisk(site) => {
            media::gateway_disk(&places, &site.cluster, &site.secrets, site.keep.as_deref(), &site.out)
        }
        Order::NodeDisk(site) => {
            media::node_disk(&places, &site.cluster, &site.secrets, site.keep.as_deref(), &site.out)
        }
        Order::Shared { directory, out } => media::shared(&directory, &out),
    }
}

/// In thousands of bytes, of which there are few enough for a floating point number.
fn kilobytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1000).unwrap_or(u32::MAX))
}
