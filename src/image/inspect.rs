//! inspect: what an image is, without unpacking it.

use super::Which;
use crate::cli::{Global, Outcome};
use clap::Args;
use coracle_image::source::{Image, Listed, Query};
use serde_json::{Value, json};

/// Print what an image is and holds, as JSON, without unpacking it
#[derive(Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    which: Which,
}

/// `coracle inspect`: JSON with everything that the source lists, and the image that would be taken.
pub(crate) fn inspect(_: &Global, args: &InspectArgs) -> Outcome {
    let (source, query, _hold) = args.which.source().map_err(|e| e.to_string())?;
    let mut listed = source.list().map_err(|e| e.to_string())?;
    // Of the whole store, the one that was named.
    listed.retain(|l| listed_name(&query).is_none_or(|name| l.name == name));
    let mut all = json!({"images": listed.iter().map(entry).collect::<Vec<_>>()});
    match source.image(&query) {
        Ok(image) => all["image"] = details(&image),
        // Several, or none for this machine: the list says which there are.
        Err(e) => all["choose"] = json!(e.to_string()),
    }
    let text = serde_json::to_string_pretty(&all).map_err(|e| e.to_string())?;
    crate::inspect::answer(&format!("{text}\n")).map(|()| 0)
}

/// A whole name, as the store has it and no tag looks like.
fn listed_name(query: &Query) -> Option<&str> {
    query.tag.as_deref().filter(|tag| tag.contains('/'))
}

fn entry(listed: &Listed) -> Value {
    let platforms: Vec<String> = listed.platforms.iter().map(ToString::to_string).collect();
    json!({"name": listed.name, "digest": listed.digest, "platforms": platforms})
}

fn details(image: &Image) -> Value {
    let run = &image.config.config;
    let layers: Vec<Value> = image
        .layers
        .iter()
        .map(|l| json!({"digest": l.digest, "diffId": l.diff_id, "bytes": l.blob.len()}))
        .collect();
    json!({
        "name": image.name,
        "digest": image.digest,
        "platform": image.config.platform.to_string(),
        "created": image.config.created,
        "bytes": image.layers.iter().map(|l| l.blob.len()).sum::<u64>(),
        "layers": layers,
        "config": {
            "entrypoint": run.entrypoint, "cmd": run.cmd, "env": run.env, "workingDir": run.working_dir, "user": run.user,
            "volumes": run.volumes.keys().collect::<Vec<_>>(), "exposedPorts": run.exposed_ports.keys().collect::<Vec<_>>(),
            "labels": run.labels, "stopSignal": run.stop_signal,
        },
    })
}
