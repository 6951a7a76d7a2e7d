//! pull, images, rmi: the store and what goes into and out of it.

use super::{Shown, sized};
use crate::cli::{Global, Outcome};
use crate::inspect::{answer, table};
use clap::Args;
use coracle_image::front;
use coracle_image::limits::Limits;
use coracle_image::pull::{Pulled, pull};
use coracle_image::reference::Reference;
use coracle_image::registry::Options;
use coracle_image::store::Store;
use coracle_state::Entry;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Which store.
#[derive(Args, Clone)]
pub(crate) struct StoreArgs {
    /// Directory of images (default: $CORACLE_STORE, /var/lib/coracle, or $XDG_DATA_HOME/coracle)
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl StoreArgs {
    /// The store, if it has been made.
    pub(super) fn existing(&self) -> coracle_image::Result<Option<Store>> {
        let path = self.store.clone().map_or_else(Store::usual, Ok)?;
        Store::existing(&path)
    }

    pub(crate) fn open(&self) -> Result<Store, String> {
        let path = self.store.clone().map_or_else(Store::usual, Ok);
        path.and_then(|path| Store::open(&path)).map_err(|e| e.to_string())
    }
}

/// How to speak to registries.
#[derive(Args, Clone)]
pub(crate) struct RegistryArgs {
    /// File with credentials, as podman login and docker login write it
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// USER:PASSWORD instead of a file's
    #[arg(long, value_name = "USER:PASSWORD")]
    creds: Option<String>,
    /// false: take any certificate, and plain HTTP where there is no TLS
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    tls_verify: Option<bool>,
    /// Directory with *.crt that vouch for the registry, and *.cert with *.key to show it
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Ask this server first: host, or host/path; may be given again
    #[arg(long, value_name = "HOST")]
    mirror: Vec<String>,
}

impl RegistryArgs {
    pub(crate) fn options(&self) -> Result<Options, String> {
        let split = |text: &String| {
            let (user, password) = text.split_once(':').ok_or("--creds: write USER:PASSWORD")?;
            Ok::<_, String>((user.to_owned(), password.to_owned()))
        };
        Ok(Options {
            auth_file: self.authfile.clone(),
            password: self.creds.as_ref().map(split).transpose()?,
            verify: self.tls_verify,
            mirrors: self.mirror.clone(),
            cert_dir: self.cert_dir.clone(),
            proxies: None,
        })
    }
}

/// Pull an image from a registry into the store
#[derive(Args)]
pub(crate) struct PullArgs {
    /// [registry/]name[:tag][@sha256:…]
    reference: String,
    /// os/architecture[/variant] instead of this machine's
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Most bytes of the layers, with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = super::size)]
    max_size: Option<u64>,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// Say what is going on as JSON, a line each
    #[arg(long)]
    json: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

/// `coracle pull`.
pub(crate) fn pull_image(_: &Global, args: &PullArgs) -> Outcome {
    let store = args.store.open()?;
    let shown = if args.quiet { Shown::nothing() } else { Shown::new(args.json) };
    let limits =
        Limits { total_bytes: args.max_size.unwrap_or(Limits::default().total_bytes), ..Limits::default() };
    let pulled =
        fetch(&store, &args.reference, args.platform.as_deref(), &args.registry.options()?, &limits, &shown);
    shown.done();
    let pulled = pulled?;
    match (args.json, args.quiet) {
        (true, _) => {
            let (name, digest) = (&pulled.name, &pulled.digest);
            Shown::line(&json!({"event": "done", "name": name, "digest": digest, "bytes": pulled.bytes}));
        }
        (_, true) => {}
        _ => crate::inspect::print(&format!("{}\n", pulled.digest)),
    }
    Ok(0)
}

/// Pulls into a store.
pub(crate) fn fetch(
    store: &Store,
    reference: &str,
    platform: Option<&str>,
    options: &Options,
    limits: &Limits,
    shown: &Shown,
) -> Result<Pulled, String> {
    let said = |e: coracle_image::Error| e.to_string();
    let reference: Reference = reference.parse().map_err(said)?;
    let platform = platform.map(str::parse).transpose().map_err(said)?;
    let pulled = pull(store, &reference, platform.as_ref(), options, limits, shown);
    pulled.map_err(|e| format!("pull {reference}: {e}"))
}

/// List the images in the store
#[derive(Args)]
pub(crate) struct ImagesArgs {
    /// table or json
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Only their names
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// `coracle images`.
pub(crate) fn images(global: &Global, args: &ImagesArgs) -> Outcome {
    let said = |e: coracle_image::Error| e.to_string();
    let store = args.store.existing().map_err(said)?;
    let listed =
        store.map(|store| super::run::sweep(global, &store).and_then(|()| store.images().map_err(said)));
    let all = listed.transpose()?.unwrap_or_default();
    if args.format == "json" {
        let all: Vec<_> = all
            .iter()
            .map(|i| {
                json!({"name": i.name, "digest": i.digest, "platform": i.platform.to_string(),
                    "created": i.created, "bytes": i.bytes})
            })
            .collect();
        return answer(&format!("{}\n", json!(all))).map(|()| 0);
    }
    if args.quiet {
        let names: String = all.iter().map(|i| format!("{}\n", i.name)).collect();
        return answer(&names).map(|()| 0);
    }
    let mut rows = vec![["NAME", "ID", "PLATFORM", "CREATED", "SIZE"].map(str::to_owned)];
    rows.extend(all.iter().map(|i| {
        let created = i.created.as_deref().unwrap_or("-").get(..19).unwrap_or("-");
        [i.name.clone(), i.digest.short().into(), i.platform.to_string(), clean(created), sized(i.bytes)]
    }));
    answer(&table(&rows)).map(|()| 0)
}

/// What an image's maker wrote goes to a terminal.
fn clean(text: &str) -> String {
    text.escape_debug().to_string()
}

/// Remove images from the store, and what only they need
#[derive(Args)]
pub(crate) struct RmiArgs {
    /// Names, or the first digits of digests; or, as ./PATH or /PATH, a bundle that unpack made
    #[arg(required_unless_present = "all")]
    images: Vec<String>,
    /// All images
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// `coracle rmi`: bundles, then names, then whatever nothing needs any more.
pub(crate) fn rmi(global: &Global, args: &RmiArgs) -> Outcome {
    let said = |e: coracle_image::Error| e.to_string();
    let (bundles, mut names): (Vec<&String>, Vec<&String>) =
        args.images.iter().partition(|name| name.starts_with(['.', '/']));
    for bundle in bundles.into_iter().map(Path::new) {
        unused(global, bundle)?;
        front::remove_bundle(bundle).map_err(said)?;
    }
    let Some(store) = args.store.existing().map_err(said)? else {
        let gone = |name: &&String| {
            format!("there is no image {} in the store, which is not there itself", name.escape_debug())
        };
        return names.first().map_or(Ok(0), |name| Err(gone(name)));
    };
    let all = if args.all { store.images().map_err(said)? } else { Vec::new() };
    let mut all: Vec<String> = all.into_iter().map(|i| i.digest.to_string()).collect();
    all.dedup();
    names.extend(&all);
    let mut failed = None;
    for name in names {
        match store.forget(name) {
            Ok(gone) => gone.iter().for_each(|n| crate::inspect::print(&format!("removed {n}\n"))),
            // With --all, one image's other names are gone already.
            Err(_) if args.all => {}
            Err(e) => failed = Some(e.to_string()),
        }
    }
    super::run::sweep(global, &store)?;
    match front::collect(&store).map_err(said)? {
        Some(_) => {}
        None => crate::log::warnings(
            global,
            &["someone is pulling or unpacking: what is left of the images goes with the next rmi".into()],
        ),
    }
    failed.map_or(Ok(0), Err)
}

/// Errors: the bundle is that of a container, whose files it has.
fn unused(global: &Global, bundle: &Path) -> Result<(), String> {
    let (root, path) = (global.state_root(), bundle.canonicalize().unwrap_or_default());
    for id in coracle_state::ids(&root).unwrap_or_default() {
        let record = Entry::open(&root, &id).and_then(|entry| entry.record());
        if record.is_ok_and(|record| record.bundle == path) {
            return Err(format!("{} is the bundle of container {id:?}; delete that first", bundle.display()));
        }
    }
    Ok(())
}
