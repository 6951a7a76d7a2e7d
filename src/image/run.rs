//! run --image: from an image to a running container in one step.
//!
//! What reads images works in child processes: the command that waits for the container stays as small as `run`.

use super::mounts::{self, Device};
use super::network::{self, NameArgs};
use super::store::{RegistryArgs, StoreArgs, fetch};
use super::{Shown, WishArgs, notes};
use super::{output, ports};
use crate::cli::{Global, Outcome};
use crate::create::{self, CreateArgs};
use clap::Args;
use coracle_image::config::{Network, Wishes};
use coracle_image::front::{self, Order};
use coracle_image::limits::Limits;
use coracle_image::reference::Reference;
use coracle_image::source::{Image, Source, split_location};
use coracle_image::store::{Container, Store, containers};
use coracle_plan::inputs::Overlay;
use coracle_plan::oci::Spec;
use coracle_plan::steps::PROGRAM;
use coracle_state::{Entry, Record};
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Run a container from an image in one step: also as run --image
#[derive(Args)]
#[command(disable_help_flag = true, mut_arg("hostname", |a| a.short('h')))]
pub(crate) struct RunArgs {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Image: a name ([registry/]name[:tag][@sha256:…]), or a layout or archive as ./PATH or /PATH; - is standard input
    #[arg(long, value_name = "IMAGE")]
    image: String,
    /// Name of the container; made up from the image's if not given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Remove the container when its program has ended
    #[arg(long)]
    rm: bool,
    /// Return when it has started
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    wish: WishArgs,
    /// Network: none (loopback only; the default), host, or pasta (a user's own way out; Debian package passt)
    #[arg(long, alias = "network", value_name = "KIND", value_parser = ["none", "host", "pasta"])]
    net: Option<String>,
    /// [ADDRESS:]HOSTPORT:PORT[/udp]: a port of the host that leads to one of the container's, by pasta
    #[arg(short, long, value_name = "PORTS", value_parser = ports::parse)]
    publish: Vec<[String; 2]>,
    #[command(flatten)]
    names: NameArgs,
    /// HOST:CONTAINER[:ro]: a file or directory of the host in the container
    #[arg(short, long, value_name = "HOST:CONTAINER[:ro]")]
    volume: Vec<String>,
    /// type=bind,source=/HOST,target=/CONTAINER[,readonly]; or type=tmpfs,target=/CONTAINER[,tmpfs-size=SIZE][,tmpfs-mode=MODE]
    #[arg(long, value_name = "MOUNT", value_parser = mounts::mount)]
    mount: Vec<Value>,
    /// HOST[:CONTAINER][:rwm]: a device of the host, or all that are in a directory
    #[arg(long, value_name = "DEVICE", value_parser = mounts::device)]
    device: Vec<Device>,
    /// Put the host's catatonit or tini before the program: it passes signals on, and waits for orphans
    #[arg(long)]
    init: bool,
    /// When to ask the registry: missing, always, never
    #[arg(long, value_name = "WHEN", default_value = "missing", value_parser = ["missing", "always", "never"])]
    pull: String,
    /// os/architecture[/variant] instead of this machine's
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Most bytes to unpack, with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = super::size)]
    max_size: Option<u64>,
    /// File to write the pid of the container's init to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Unix socket that takes the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// Program's arguments instead of the image's: all that follows, options too
    #[arg(trailing_var_arg = true)]
    args: Vec<String>,
}

impl RunArgs {
    /// The kind of network. Errors: ports for one that has no way to the host.
    fn net(&self) -> Result<&str, String> {
        match (self.net.as_deref(), self.publish.is_empty()) {
            (Some("pasta"), _) | (None, false) => Ok("pasta"),
            (Some("host"), false) => {
                Err("--publish: with --net host the container's ports are the host's".into())
            }
            (Some("none"), false) => Err("--publish: with --net none nobody reaches the container".into()),
            (other, _) => Ok(other.unwrap_or("none")),
        }
    }
}

/// `coracle run --image`. What was not the program's own end has the exit codes of engines: 127 for a program that is not
/// there, 126 for one that cannot be run, 125 for all else.
pub(crate) fn run(global: &Global, args: &RunArgs) -> Outcome {
    run_one(global, args).or_else(|message| {
        crate::log::error(global, &message);
        Ok(match message.contains(PROGRAM) {
            true if message.contains("permission denied") => create::UNRUNNABLE,
            true => create::UNKNOWN,
            false => 125,
        })
    })
}

fn run_one(global: &Global, args: &RunArgs) -> Outcome {
    let store = args.store.open()?;
    let id = args.name.clone().map_or_else(|| made_up(&args.image), Ok)?;
    coracle_state::check_id(&id).map_err(|e| e.to_string())?;
    if args.net()? == "pasta" {
        network::find()?;
    }
    // A directory without a container may be of a command that was killed, whose last process is still going.
    settled(global, &store, &id, Duration::from_secs(1))?;
    let place = store.reserve(&id).map_err(|e| e.to_string())?;
    let outcome = prepared(global, args, &store, &id, &place.path);
    // What did not come to be a container leaves nothing.
    if Entry::open(&global.state_root(), &id).is_err() && place.path.exists() {
        network::stop(&place.path);
        front::forget(&store, &id).map_err(|e| e.to_string())?;
    }
    outcome
}

fn prepared(global: &Global, args: &RunArgs, store: &Store, id: &str, bundle: &Path) -> Outcome {
    let limits = match args.max_size {
        Some(total_bytes) => Limits { total_bytes, inflate_ratio: u64::MAX, ..Limits::default() },
        None => Limits::default(),
    };
    let shown = Shown::new(false);
    if !is_path(&args.image) {
        arrive(args, store, &limits, &shown)?;
    }
    let mut wishes = args.wish.wishes(&args.args)?;
    let net = args.net()?;
    wishes.hostname = Some(wishes.hostname.unwrap_or_else(|| id.chars().take(64).collect()));
    wishes.network = if net == "host" { Network::Host } else { Network::None };
    attach(args, &mut wishes)?;
    let files = args.names.files(bundle, wishes.hostname.as_deref().unwrap_or_default(), net)?;
    let taken = |file: &Value| wishes.mounts.iter().any(|m| m["destination"] == file["destination"]);
    let files: Vec<Value> = files.into_iter().filter(|file| !taken(file)).collect();
    wishes.mounts.extend(files);
    mounts::sort(&mut wishes.mounts);
    let name = if is_path(&args.image) { args.image.clone() } else { full(&args.image)? };
    let state = global.state_root();
    let order = Order { id, name: &name, state: &state, remove: args.rm };
    let made = front::make(store, &order, || image(args, store, &limits), &wishes, &limits, &shown);
    shown.done();
    let (container, said) = made.map_err(|e| format!("run {}: {e}", args.image.escape_debug()))?;
    notes(global, &said);
    if !args.interactive && !args.wish.tty() {
        network::nothing_to_read();
    }
    let directory = store.path().join(&container.directory);
    let overlay =
        (!container.options.is_empty()).then_some(Overlay { directory, options: container.options });
    let create = CreateArgs {
        bundle: bundle.to_owned(),
        config: "config.json".into(),
        console_socket: args.console_socket.clone(),
        pid_file: args.pid_file.clone(),
        id: id.to_owned(),
        ..CreateArgs::default()
    };
    let connect = |namespaces: &[OwnedFd; 2]| network::start(namespaces, bundle, &args.publish);
    // Who takes the name of a detached container by $(…) is not to wait for its last word.
    let quiet = args.detach && !args.wish.tty();
    let output = quiet.then(|| output::open(bundle)).transpose()?;
    let image = create::Image { overlay, network: (net == "pasta").then_some(&connect), output, codes: true };
    let outcome = create::run_image(global, &create, args.detach, !args.rm, &image);
    if args.detach && outcome.is_ok() {
        crate::inspect::print(&format!("{id}\n"));
    } else {
        network::stop(bundle);
    }
    outcome
}

/// Sees to it that the image is in the store.
fn arrive(args: &RunArgs, store: &Store, limits: &Limits, shown: &Shown) -> Result<(), String> {
    let name = full(&args.image)?;
    let platform = args
        .platform
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|e: coracle_image::Error| e.to_string())?;
    if args.pull != "always" && matches!(store.image(&name, platform.as_ref(), limits), Ok(Some(_))) {
        return Ok(());
    }
    if args.pull == "never" {
        return Err(format!("{name} is not in the store; coracle pull {name} gets it"));
    }
    let options = args.registry.options()?;
    let work = || {
        let pulled = fetch(store, &args.image, args.platform.as_deref(), &options, limits, shown);
        pulled.map(drop).map_err(|e| coracle_image::Error::new(coracle_image::Kind::Network, e))
    };
    let done = coracle_image::rootless::aside(work).map_err(|e| e.to_string());
    shown.done();
    done
}

fn image(args: &RunArgs, store: &Store, limits: &Limits) -> coracle_image::Result<Image> {
    let platform = args.platform.as_deref().map(str::parse).transpose()?;
    if is_path(&args.image) {
        let (location, mut query) = split_location(&args.image)?;
        query.platform = platform;
        return Source::open(&location, limits)?.image(&query);
    }
    let name = args.image.parse::<Reference>()?.to_string();
    let found = store.image(&name, platform.as_ref(), limits)?;
    found.ok_or_else(|| {
        coracle_image::Error::new(coracle_image::Kind::NotFound, format!("{name} is gone from the store"))
    })
}

/// Names of images never begin so; a path that does not is not looked for: what lies in the current directory must not
/// take the place of an image.
fn is_path(image: &str) -> bool {
    image.starts_with(['/', '.']) || image == "-" || image.starts_with("-:")
}

fn full(image: &str) -> Result<String, String> {
    image.parse::<Reference>().map(|r| r.to_string()).map_err(|e| e.to_string())
}

/// `busybox-1f03ab9c`
fn made_up(image: &str) -> Result<String, String> {
    use std::hash::BuildHasher;
    let last = image.trim_end_matches('/').rsplit('/').next().unwrap_or("");
    let word: String = last.chars().take_while(|c| c.is_ascii_alphanumeric()).take(20).collect();
    let number = std::hash::RandomState::new().hash_one(std::process::id()) as u32;
    Ok(format!("{}-{number:08x}", if word.is_empty() { "image" } else { &word }))
}

/// What of the host comes into the container. Errors: it is not there, or not to be had.
fn attach(args: &RunArgs, wishes: &mut Wishes) -> Result<(), String> {
    for word in &args.volume {
        wishes.mounts.push(mounts::volume(word)?);
    }
    wishes.mounts.extend(args.mount.iter().cloned());
    for device in &args.device {
        if device.limited && coracle_sys::creds::geteuid() != 0 {
            return Err("--device: what may be done with it is the host's to say for users, by the device's mode; leave out what follows the last colon".into());
        }
        wishes.mounts.push(device.mount.clone());
        wishes.devices.extend(device.rules.iter().cloned());
    }
    if args.init {
        let path = INITS.iter().find(|path| Path::new(path).exists()).ok_or(
            "--init: there is neither catatonit nor a static tini on this machine (Debian: package catatonit, or tini)",
        )?;
        wishes.mounts.push(mounts::program(path, INIT));
        wishes.init = vec![INIT.into(), "--".into()];
    }
    Ok(())
}

/// Where distributions have an init for containers: static programs, for the image has no libraries for them.
const INITS: [&str; 7] = [
    "/usr/libexec/podman/catatonit",
    "/usr/lib/podman/catatonit",
    "/usr/bin/catatonit",
    "/usr/libexec/docker/docker-init",
    "/usr/bin/docker-init",
    "/usr/bin/tini-static",
    "/sbin/docker-init",
];
/// Its place in the container.
const INIT: &str = "/run/coracle-init";

/// Where a container that was made from an image lies.
pub(crate) struct Home {
    store: PathBuf,
    id: String,
}

/// How long whoever else is at work on a container that goes may take.
const REMOVAL: Duration = Duration::from_secs(10);

impl Home {
    /// That of a container; `None`: it was not made from an image, or has been removed. Its annotation counts where its
    /// bundle is there, too: others write annotations, and what lies at any other place is not this container's to remove.
    pub(crate) fn of(spec: &Spec, record: &Record) -> Option<Home> {
        let place = spec.annotations().as_ref()?.get(front::PLACE)?;
        let own = Some(&record.bundle).filter(|bundle| *bundle == Path::new(place))?;
        containers::of_bundle(own).map(|(store, id)| Home { store, id })
    }

    /// A configuration may name what is none: then there is nothing of ours.
    fn store(&self) -> Result<Option<Store>, String> {
        Store::existing(&self.store).map_err(|e| e.to_string())
    }

    /// Removes the directory of a container that is no more, unless the command that made it still holds it and will. Whether
    /// it is gone.
    pub(crate) fn forget(&self) -> Result<bool, String> {
        let Some(store) = self.store()? else { return Ok(true) };
        clear(&store, Some(&self.id))?;
        Ok(!going(&store, &self.id))
    }

    /// Removes a container that was to go with its program, now that this has ended, or what is left of one; any other
    /// stays. Its name is free then, unless somebody is at work on it for longer than [`REMOVAL`].
    pub(crate) fn ended(&self, global: &Global) -> Result<(), String> {
        self.store()?.map_or(Ok(()), |store| settled(global, &store, &self.id, REMOVAL))
    }
}

/// Sweeps until nothing of a container goes any more. Not only once: whoever else sweeps passes over what somebody else has
/// in hand, and is not done with it when this returns.
fn settled(global: &Global, store: &Store, id: &str, patience: Duration) -> Result<(), String> {
    let end = Instant::now() + patience;
    sweep(global, store)?;
    while going(store, id) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
        sweep(global, store)?;
    }
    Ok(())
}

/// Whether there is a directory of that name that will not stay.
fn going(store: &Store, id: &str) -> bool {
    store.container_path(id).exists()
        && store.noted(id).is_none_or(|container| {
            Entry::open(&container.state, id).is_err() || passed(store, &container).is_some()
        })
}

/// The state of a container that was to go with its program, if this has ended.
fn passed(store: &Store, container: &Container) -> Option<Entry> {
    let entry = Entry::open(&container.state, &container.id).ok()?;
    let record = entry.record().ok()?;
    let ended = || coracle_apply::lifecycle::status(&entry, &record).is_ok_and(|(s, _)| s == "stopped");
    let own = container.remove && record.bundle == store.container_path(&container.id) && ended();
    own.then_some(entry)
}

/// Removes what interrupted commands have left in a store, and what was to go with its program.
pub(crate) fn sweep(global: &Global, store: &Store) -> Result<(), String> {
    for container in store.passing().map_err(|e| e.to_string())? {
        if let Some(entry) = passed(store, &container) {
            // Best effort: someone else may be sweeping too.
            let _ = crate::lifecycle::remove(global, &entry, true);
        }
    }
    clear(store, None)
}

/// Removes directories without a container, or this one's only.
fn clear(store: &Store, only: Option<&str>) -> Result<(), String> {
    let exists = |state: &Path, id: &str| {
        // One of the same name that is not of this store does not keep the directory; nor one that was never made.
        Entry::open(state, id).is_ok_and(|entry| match entry.record() {
            Ok(record) => record.bundle == store.container_path(id),
            Err(_) => !entry.discard_unborn(),
        })
    };
    for left in store.leftovers(only, exists).map_err(|e| e.to_string())? {
        network::stop(&store.container_path(&left.name));
        front::forget(store, &left.name).map_err(|e| e.to_string())?;
    }
    Ok(())
}
