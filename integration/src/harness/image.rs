//! An image made of the tests' root file system: an OCI layout of two layers, with tar, gzip and sha256sum alone, so that
//! no tool under test has a hand in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::{Ctx, Output, Result, check, rootfs};

/// A layout below a test's directory.
pub(crate) struct Layout {
    /// Where it is.
    pub(crate) path: PathBuf,
    layers: Vec<Value>,
    diff_ids: Vec<String>,
}

impl Layout {
    /// An image whose first layer is the tests' root file system.
    pub(crate) fn new(ctx: &Ctx, name: &str) -> Result<Layout> {
        let mut layout = Layout::empty(ctx, name)?;
        let root = ctx.dir.join(format!("{name}-root"));
        rootfs::make(&ctx.image_store(), &root)?;
        layout.layer(&root, &["."])?;
        Ok(layout)
    }

    /// An image without layers.
    pub(crate) fn empty(ctx: &Ctx, name: &str) -> Result<Layout> {
        let path = ctx.dir.join(name);
        fs::create_dir_all(path.join("blobs/sha256"))?;
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Layout { path, layers: Vec::new(), diff_ids: Vec::new() })
    }

    /// Adds a layer: these names below a directory, owned by root, compressed with gzip.
    pub(crate) fn layer(&mut self, root: &Path, names: &[&str]) -> Result {
        self.layer_of(root, names, (0, 0))
    }

    /// Adds a layer of which all belongs to this user and group.
    pub(crate) fn layer_of(&mut self, root: &Path, names: &[&str], (user, group): (u32, u32)) -> Result {
        let tar = self.path.join("layer.tar");
        let status = Command::new("tar")
            .arg("-cf")
            .arg(&tar)
            .arg("-C")
            .arg(root)
            .args([format!("--owner={user}"), format!("--group={group}")])
            .args(["--numeric-owner", "--no-recursion", "--null", "-T", "-"])
            .stdin(list(root, names)?)
            .status()?;
        // 1: the tests beside this one add names to the same inodes, so that their change times differ.
        check!(matches!(status.code(), Some(0 | 1)), "tar: {status}");
        self.packed()
    }

    /// Adds a layer: a whole tree, as tar takes it with further words.
    pub(crate) fn tar(&mut self, root: &Path, words: &str) -> Result {
        let script = format!("tar {words} -cf '{}' .", self.path.join("layer.tar").display());
        let status = Command::new("sh").args(["-ec", &script]).current_dir(root).status()?;
        check!(status.success(), "tar: {status}");
        self.packed()
    }

    /// Adds a layer: this archive.
    pub(crate) fn archive(&mut self, tar: &Path) -> Result {
        fs::copy(tar, self.path.join("layer.tar"))?;
        self.packed()
    }

    /// Compresses the archive that lies ready, and keeps it.
    fn packed(&mut self) -> Result {
        let tar = self.path.join("layer.tar");
        self.diff_ids.push(digest(&tar)?);
        let status = Command::new("gzip").arg("-nf").arg(&tar).status()?;
        check!(status.success(), "gzip: {status}");
        let blob = self.keep(&self.path.join("layer.tar.gz"))?;
        self.layers.push(descriptor(&blob, "application/vnd.oci.image.layer.v1.tar+gzip"));
        Ok(())
    }

    /// Writes configuration, manifest and index. `config` is the image's `config` object. Returns the layout's path.
    pub(crate) fn finish(&self, config: &Value) -> Result<String> {
        let document = |value: Value| -> Result<(String, u64)> {
            let file = self.path.join("document");
            fs::write(&file, value.to_string())?;
            self.keep(&file)
        };
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = document(json!({"os": "linux", "architecture": architecture, "config": config,
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids}}))?;
        let manifest = document(json!({"schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(&config, "application/vnd.oci.image.config.v1+json"), "layers": self.layers}))?;
        let mut root = descriptor(&manifest, "application/vnd.oci.image.manifest.v1+json");
        root["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
        fs::write(
            self.path.join("index.json"),
            json!({"schemaVersion": 2, "manifests": [root]}).to_string(),
        )?;
        Ok(self.path.display().to_string())
    }

    fn keep(&self, file: &Path) -> Result<(String, u64)> {
        let (digest, size) = (digest(file)?, fs::metadata(file)?.len());
        fs::rename(file, self.path.join("blobs").join(digest.replace(':', "/")))?;
        Ok((digest, size))
    }
}

fn descriptor((digest, size): &(String, u64), media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

/// The names, and everything below those that are directories, ended by NULs: a list for tar.
fn list(root: &Path, names: &[&str]) -> Result<fs::File> {
    let file = root.with_extension("list");
    let status = Command::new("find")
        .args(names)
        .arg("-print0")
        .current_dir(root)
        .stdout(fs::File::create(&file)?)
        .status()?;
    check!(status.success(), "find: {status}");
    Ok(fs::File::open(file)?)
}

fn digest(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(file).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let hex = text.split_whitespace().next().unwrap_or_default();
    check!(hex.len() == 64, "sha256sum said {text:?}");
    Ok(format!("sha256:{hex}"))
}

/// A test's own store.
pub(crate) fn store(ctx: &Ctx) -> PathBuf {
    ctx.dir.join("store")
}

/// The runtime with a store of this test's own.
pub(crate) fn command(ctx: &Ctx, words: &[&str]) -> Command {
    let mut command = ctx.command(words);
    command.env("CORACLE_STORE", store(ctx));
    command
}

/// Runs it to its end.
pub(crate) fn call(ctx: &Ctx, words: &[&str]) -> Result<Output> {
    ctx.finish(command(ctx, words))
}

/// `run --image` with further words.
pub(crate) fn run(ctx: &Ctx, words: &[&str]) -> Result<Output> {
    call(ctx, &[&["run", "--image"], words].concat())
}

/// The names below a directory of the store, but those that begin with a dot.
pub(crate) fn kept(ctx: &Ctx, directory: &str) -> Result<Vec<String>> {
    let list = fs::read_dir(store(ctx).join(directory))?.flatten();
    let names = list.map(|e| e.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|n| !n.starts_with('.')).collect())
}
