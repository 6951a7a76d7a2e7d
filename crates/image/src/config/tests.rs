use super::*;
use crate::manifest::ImageConfig;
use coracle_sys::fs;
use std::os::fd::{AsFd, OwnedFd};

fn image(config: Value) -> Image {
    let whole = json!({"os": "linux", "architecture": "amd64", "config": config, "rootfs": {"type": "layers", "diff_ids": []}});
    let config = ImageConfig::parse(whole.to_string().as_bytes(), 0).unwrap();
    Image { name: "x".into(), digest: None, config, annotations: Annotations::new(), layers: Vec::new() }
}

/// A root file system without anything, removed at the end.
struct Root(std::path::PathBuf, OwnedFd);

impl Root {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = std::env::temp_dir().join(format!(
            "coracle-config-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir(&dir).unwrap();
        let fd = std::fs::File::open(&dir).unwrap().into();
        Self(dir, fd)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn convert(config_of_image: Value, wishes: &Wishes) -> Result<(Value, Vec<String>)> {
    let root = Root::new();
    config(&image(config_of_image), wishes, root.1.as_fd())
}

#[test]
fn entrypoint_and_cmd() {
    let args = |config: Value, wishes: Wishes| {
        convert(config, &wishes).map(|(spec, _)| spec["process"]["args"].clone()).ok()
    };
    let both = json!({"Entrypoint": ["e"], "Cmd": ["c", "d"]});
    assert_eq!(args(both.clone(), Wishes::default()), Some(json!(["e", "c", "d"])));
    assert_eq!(
        args(both.clone(), Wishes { args: vec!["u".into()], ..Wishes::default() }),
        Some(json!(["e", "u"]))
    );
    assert_eq!(
        args(both, Wishes { entrypoint: Some(vec!["n".into()]), ..Wishes::default() }),
        Some(json!(["n"]))
    );
    assert_eq!(args(json!({}), Wishes::default()), None);
    assert_eq!(args(json!({"Cmd": ["a\u{0}b"]}), Wishes::default()), None);
}

/// Docker's own members of a configuration: what is run is args, whatever Shell, OnBuild and Healthcheck say; null is none.
#[test]
fn what_engines_add_changes_nothing() {
    let added = json!({"Cmd": ["c"], "Entrypoint": null, "Env": null, "Labels": null, "Volumes": null, "ExposedPorts": null,
        "User": "", "WorkingDir": "", "Hostname": "h", "Domainname": "", "AttachStdin": false, "Tty": true, "OpenStdin": true,
        "StdinOnce": true, "Image": "sha256:0", "ArgsEscaped": true, "NetworkDisabled": true, "MacAddress": "x",
        "Shell": ["/bin/bash", "-c"], "OnBuild": ["RUN false"], "StopTimeout": 3,
        "Healthcheck": {"Test": ["CMD", "false"], "Interval": 1_000_000_000, "Retries": 3}});
    let (spec, notes) = convert(added, &Wishes::default()).unwrap();
    let (plain, _) = convert(json!({"Cmd": ["c"]}), &Wishes::default()).unwrap();
    assert_eq!((spec, notes), (plain, Vec::<String>::new()));
}

/// CVE-2026-57231.
#[test]
fn environment_lines_that_are_none() {
    let wishes = Wishes { env: vec!["A=2".into()], ..Wishes::default() };
    let (spec, notes) =
        convert(json!({"Cmd": ["x"], "Env": ["HOME*", "*", "SECRET", "=x", "A=1", "B=a=b"]}), &wishes)
            .unwrap();
    assert_eq!(spec["process"]["env"], json!(["A=2", "B=a=b", format!("PATH={}", defaults::PATH), "HOME=/"]));
    assert_eq!(notes.len(), 4);
}

/// CVE-2024-3154, CVE-2026-94603, CVE-2026-53492.
#[test]
fn nothing_that_a_runtime_acts_on_comes_through() {
    let labels = json!({"run.oci.handler": "krun", "org.systemd.property.ExecStart": "x", "io.podman.annotations.privileged": "TRUE",
        "coracle.x": "y", "bundle": "/", "cdi.k8s.io/x": "y", "maintainer": "m", "org.opencontainers.image.os": "plan9"});
    let (spec, notes) = convert(json!({"Cmd": ["x"], "Labels": labels, "StopSignal": "SIGQUIT", "ExposedPorts": {"80/tcp": {}, "53/udp": {}}}), &Wishes::default()).unwrap();
    assert_eq!(
        spec["annotations"],
        json!({"maintainer": "m", "org.opencontainers.image.os": "plan9", "org.opencontainers.image.architecture": "amd64",
        "org.opencontainers.image.stopSignal": "SIGQUIT", "org.opencontainers.image.exposedPorts": "53/udp,80/tcp"})
    );
    assert_eq!(notes.len(), 1);
}

/// CVE-2025-24965 and its kind: what this program makes in the root file system must not follow the image's links out.
#[test]
fn directories_are_made_inside() {
    let root = Root::new();
    std::os::unix::fs::symlink("/tmp", root.0.join("out")).unwrap();
    std::os::unix::fs::symlink("/nowhere", root.0.join("dangling")).unwrap();
    std::fs::create_dir(root.0.join("tmp")).unwrap();
    let at = |dir: &str| {
        config(
            &image(json!({"Cmd": ["x"], "WorkingDir": dir, "Volumes": {"/data/a": {}}})),
            &Wishes::default(),
            root.1.as_fd(),
        )
    };
    assert_eq!(at("a/b/../c").unwrap().0["process"]["cwd"], "/a/b/../c");
    at(&format!("/out/coracle-{}", std::process::id())).unwrap();
    assert!(
        root.0.join(format!("tmp/coracle-{}", std::process::id())).is_dir() && root.0.join("data/a").is_dir()
    );
    assert!(at("/dangling/x").is_err());
    assert!(at(&format!("/{}", "../".repeat(20))).is_ok());
}

/// CVE-2026-61801, CVE-2024-9676.
#[test]
fn hostile_passwd_files() {
    let wishes = Wishes { user: Some("ann".into()), args: vec!["x".into()], ..Wishes::default() };
    let attempt = |prepare: &dyn Fn(&std::path::Path)| {
        let root = Root::new();
        std::fs::create_dir(root.0.join("etc")).unwrap();
        prepare(&root.0.join("etc/passwd"));
        config(&image(json!({})), &wishes, root.1.as_fd())
    };
    let line = "ann:x:7:8::/:\n";
    assert!(attempt(&|p| std::fs::write(p, line).unwrap()).is_ok());
    assert!(
        attempt(&|p| {
            std::fs::write(p.with_file_name("real"), line).unwrap();
            std::os::unix::fs::symlink("/etc/real", p).unwrap();
        })
        .is_ok()
    );
    let bad: [&dyn Fn(&std::path::Path); 6] = [
        &|p| {
            fs::mknodat(fs::cwd(), &std::ffi::CString::new(p.to_str().unwrap()).unwrap(), 0o010_644, 0, 0)
                .unwrap()
        },
        &|p| std::fs::create_dir(p).unwrap(),
        &|p| std::os::unix::fs::symlink("passwd", p).unwrap(),
        &|p| std::os::unix::fs::symlink("/dev/zero", p).unwrap(),
        &|p| std::fs::File::create(p).unwrap().set_len(1 << 30).unwrap(),
        &|p| std::os::unix::fs::symlink("../../../../../../../../proc/self/root/etc/passwd", p).unwrap(),
    ];
    for (i, prepare) in bad.iter().enumerate() {
        assert!(attempt(prepare).is_err(), "{i}");
    }
}

#[test]
fn without_privileges() {
    let one = |outside| vec![IdRange { inside: 0, outside, count: 1 }];
    let wishes = Wishes { ids: Some(Ids { users: one(1000), groups: one(1000) }), ..Wishes::default() };
    let (spec, _) = convert(json!({"Cmd": ["x"]}), &wishes).unwrap();
    assert_eq!(spec["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": 1000, "size": 1}]));
    assert!(!spec["mounts"].to_string().contains("gid=5") && spec["linux"].get("resources").is_none());
    assert!(
        convert(json!({"Cmd": ["x"], "User": "12"}), &wishes).unwrap_err().to_string().contains("--user")
    );
}

/// Docker's --read-only: what the image calls a volume is written to all the same, unless the caller has put something there.
#[test]
fn volumes_under_a_readonly_root() {
    let image = json!({"Cmd": ["c"], "Volumes": {"/data": {}, "rel/ative": {}, "/": {}, "/proc/x": {}, "/a/../..": {}, "/mine": {}}});
    let mine = json!({"destination": "/mine", "type": "bind", "source": "/srv", "options": []});
    let wishes = Wishes { readonly: true, mounts: vec![mine], ..Wishes::default() };
    let (spec, notes) = convert(image.clone(), &wishes).unwrap();
    let mounts = spec["mounts"].as_array().unwrap();
    let added: Vec<_> =
        mounts.iter().filter(|m| m["options"].as_array().unwrap().contains(&json!("tmpcopyup"))).collect();
    assert_eq!(added.iter().map(|m| &m["destination"]).collect::<Vec<_>>(), ["/data", "/rel/ative"]);
    assert_eq!(mounts.iter().filter(|m| m["destination"] == "/mine").count(), 1);
    assert!(notes.iter().any(|n| n.contains("/data")), "{notes:?}");
    let (spec, notes) = convert(image, &Wishes::default()).unwrap();
    assert!(!spec["mounts"].to_string().contains("/data") && notes.is_empty(), "{notes:?}");
}
