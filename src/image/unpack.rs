//! unpack: an image becomes a bundle.

use super::{Shown, Which, WishArgs, notes};
use crate::cli::{Global, Outcome};
use clap::Args;
use coracle_image::config::{Network, Wishes};
use coracle_image::front;
use std::path::PathBuf;

/// Turn an image (OCI layout, oci-archive, docker-archive) into a bundle
#[derive(Args)]
pub(crate) struct UnpackArgs {
    #[command(flatten)]
    which: Which,
    /// Directory for config.json and rootfs; made if it is not there
    bundle: PathBuf,
    #[command(flatten)]
    wish: WishArgs,
    /// Network: none (loopback only) or host
    #[arg(long, value_name = "KIND", default_value = "none", value_parser = ["none", "host"])]
    net: String,
    /// Say what is going on as JSON, a line each
    #[arg(long)]
    json: bool,
    /// Program's arguments instead of the image's
    #[arg(last = true)]
    args: Vec<String>,
}

/// `coracle unpack`.
pub(crate) fn unpack(global: &Global, args: &UnpackArgs) -> Outcome {
    let (image, _hold) = args.which.open().map_err(|e| e.to_string())?;
    let shown = Shown::new(args.json);
    let network = if args.net == "host" { Network::Host } else { Network::None };
    let wishes = Wishes { network, ..args.wish.wishes(&args.args)? };
    let unpacked = front::unpack(&image, &args.bundle, &wishes, &args.which.limits(), &shown);
    shown.done();
    let report = unpacked.map_err(|e| e.to_string())?;
    match args.json {
        true => Shown::line(&serde_json::json!({"event": "done", "entries": report.summary.entries,
            "bytes": report.summary.bytes, "confined": report.confined, "notes": report.notes})),
        false => notes(global, &report.notes),
    }
    Ok(0)
}
