//! Pulling from registries, honest and hostile: a small server here plays them. What must hold: every byte is verified,
//! what broke off goes on, and no secret reaches anybody but the registry and its own token server.
#![allow(missing_docs)]

mod common;
use common::server::{Answer, INDEX, Image, MANIFEST, Request, Server, ok, status};
use common::{Scratch, sha256};
use coracle_image::events::Silent;
use coracle_image::limits::Limits;
use coracle_image::pull::{Pulled, pull};
use coracle_image::registry::Options;
use coracle_image::store::Store;
use coracle_image::{Kind, Result};
use serde_json::json;
use std::sync::{Arc, Mutex};

fn pull_from(scratch: &Scratch, name: &str, options: &Options) -> Result<Pulled> {
    let store = Store::open(&scratch.path.join("store")).unwrap();
    let options = Options { auth_file: options.auth_file.clone(), ..options.clone() };
    pull(&store, &name.parse().unwrap(), None, &options, &Limits::default(), &Silent)
}

/// Whether the store lists an image; and whatever lies among its blobs is what its name says.
fn has_image(scratch: &Scratch) -> bool {
    let store = Store::open(&scratch.path.join("store")).unwrap();
    for entry in std::fs::read_dir(store.images_path().join("blobs/sha256")).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap();
        assert_eq!(sha256(&bytes), format!("sha256:{}", entry.file_name().to_str().unwrap()));
    }
    !store.images().unwrap().is_empty()
}

fn password() -> Options {
    Options { password: Some(("me".into(), "secret".into())), ..Options::default() }
}

fn told(server: &Server) -> Vec<String> {
    server.requests().iter().filter_map(|r| r.header("authorization").map(str::to_owned)).collect()
}

#[test]
fn an_honest_registry() {
    let (scratch, image) = (Scratch::new(), Image::new());
    let server = Server::start(move |r| image.answer(r));
    pull_from(&scratch, &server.name(), &Options::default()).unwrap();
    assert!(has_image(&scratch));
    assert!(server.requests().iter().all(|r| !r.path.contains("evil")));
}

#[test]
fn a_broken_download_goes_on_where_it_ended() {
    let (scratch, image) = (Scratch::new(), Image::new());
    let layer = image.layer.clone();
    let length = image.blobs[&layer].len();
    let server = Server::start(move |r| {
        let mut a = image.answer(r);
        if r.path.contains(&image.layer) && r.header("range").is_none() {
            a.cut = Some(length / 2);
        }
        a
    });
    pull_from(&scratch, &server.name(), &Options::default()).unwrap();
    assert!(has_image(&scratch));
    let asked: Vec<Option<String>> = server
        .requests()
        .iter()
        .filter(|r| r.path.contains(&layer))
        .map(|r| r.header("range").map(str::to_owned))
        .collect();
    assert_eq!(asked, [None, Some(format!("bytes={}-", length / 2))]);
}

/// RFC 9110, 10.2.3: a server that cannot now is asked again after the time that it names, and not for ever.
#[test]
fn a_busy_registry_is_asked_again() {
    // How often what is answered so, for manifests, blobs or tokens; how many requests there are, if it does not come right.
    for (times, code, after, path, most) in [
        (2, 429, Some("1"), "/manifests/", None),
        (2, 503, None, "/manifests/", None),
        (2, 429, Some("1"), "/blobs/", None),
        (1, 502, Some("Fri, 31 Dec 1999 23:59:59 GMT"), "/blobs/", None),
        (1, 503, Some("1"), "/token", None),
        (9, 500, None, "/manifests/", Some(4)),
        (9, 429, Some("3600"), "/manifests/", Some(1)),
        (9, 403, Some("1"), "/blobs/", Some(1)),
    ] {
        let (good, asked) = (most.is_none(), most.unwrap_or(times + 1));
        let (scratch, image) = (Scratch::new(), Image::new());
        let (left, port) = (Mutex::new(times), Arc::new(Mutex::new(0)));
        let own = port.clone();
        // One blob or manifest is enough: the image's configuration comes first.
        let server = Server::start(move |r| {
            let mut left = left.lock().unwrap();
            if r.path.contains(path) && *left > 0 {
                *left -= 1;
                return status(code, &after.map(|a| ("Retry-After", a)).into_iter().collect::<Vec<_>>());
            }
            if r.path.starts_with("/token") {
                return ok("application/json", b"{\"token\": \"t\"}");
            }
            if path == "/token" && r.header("authorization").is_none() {
                let realm = format!("Bearer realm=\"http://127.0.0.1:{}/token\"", own.lock().unwrap());
                return status(401, &[("WWW-Authenticate", &realm)]);
            }
            image.answer(r)
        });
        *port.lock().unwrap() = server.port;
        let began = std::time::Instant::now();
        let pulled = pull_from(&scratch, &server.name(), &Options::default());
        let (case, seconds) = (format!("{code} {after:?} for {path}"), began.elapsed().as_secs());
        assert_eq!(pulled.is_ok(), good, "{case}: {pulled:?}");
        let busy = server.requests();
        let first = busy.iter().find(|r| r.path.contains(path)).unwrap().path.clone();
        assert_eq!(busy.iter().filter(|r| r.path == first).count(), asked, "{case}: requests");
        assert!(
            seconds < 20 && (after != Some("1") || !good || seconds >= times as u64),
            "{case}: {seconds} s"
        );
        if let Err(e) = pulled {
            assert!(e.to_string().contains(&code.to_string()), "{e}");
            assert!(after != Some("3600") || e.to_string().contains("3600 s"), "{e}");
        }
    }
}

/// What is here of a blob may be other bytes than the rest: they are dropped, and all of it comes, in the same command.
#[test]
fn a_download_that_goes_on_from_other_bytes_begins_anew() {
    let (scratch, image) = (Scratch::new(), Image::new());
    let layer = image.layer.clone();
    let length = image.blobs[&layer].len();
    let broken = std::sync::atomic::AtomicBool::new(false);
    let server = Server::start(move |r| {
        let mut a = image.answer(r);
        if r.path.contains(&image.layer) && !broken.swap(true, std::sync::atomic::Ordering::Relaxed) {
            (a.body, a.cut) = (vec![0; length], Some(length / 2));
        }
        a
    });
    pull_from(&scratch, &server.name(), &Options::default()).unwrap();
    assert!(has_image(&scratch));
    let asked = server.requests().iter().filter(|r| r.path.contains(&layer)).count();
    assert_eq!(asked, 3, "requests for the layer");
}

/// Wrong bytes, fewer, more: refused, and never kept under the blob's name. The next pull from an honest server succeeds.
#[test]
fn wrong_bytes_are_refused() {
    type Change = fn(&mut Vec<u8>);
    let changes: [Change; 4] = [|b| b[100] ^= 1, |b| b.truncate(b.len() - 1), |b| b.push(0), Vec::clear];
    for change in changes {
        for what in ["layer", "manifest", "config"] {
            let (scratch, image) = (Scratch::new(), Image::new());
            let honest = image.clone();
            let mut bad = image.clone();
            match what {
                "manifest" => change(&mut bad.manifest),
                "layer" => change(bad.blobs.get_mut(&image.layer).unwrap()),
                _ => bad.blobs.iter_mut().filter(|(d, _)| **d != image.layer).for_each(|(_, b)| change(b)),
            }
            let digest = sha256(&image.manifest);
            let server = Server::start(move |r| bad.answer(r));
            let name = format!("127.0.0.1:{}/app@{digest}", server.port);
            assert!(pull_from(&scratch, &name, &Options::default()).is_err(), "{what}");
            assert!(!has_image(&scratch), "{what}");
            let server = Server::start(move |r| honest.answer(r));
            let name = format!("127.0.0.1:{}/app@{digest}", server.port);
            pull_from(&scratch, &name, &Options::default()).unwrap();
        }
    }
}

/// CVE-2021-41190: a manifest that is an index too; a Content-Type that says otherwise than the document.
#[test]
fn ambiguous_manifests_are_refused() {
    let image = Image::new();
    let mut both: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    both["manifests"] = json!([]);
    let both = both.to_string().into_bytes();
    for (media_type, bytes) in [(MANIFEST, both.clone()), (INDEX, both), (INDEX, image.manifest.clone())] {
        let (scratch, image, bytes) = (Scratch::new(), image.clone(), bytes.clone());
        let server = Server::start(move |r| match r.path.contains("/manifests/") {
            true => ok(media_type, &bytes),
            false => image.answer(r),
        });
        let failed = pull_from(&scratch, &server.name(), &Options::default()).unwrap_err();
        assert_eq!(failed.kind(), Kind::Corrupt, "{failed}");
        assert!(!has_image(&scratch));
    }
}

#[test]
fn a_password_and_a_token_open_the_registry() {
    let (scratch, image) = (Scratch::new(), Image::new());
    let port = Arc::new(Mutex::new(0u16));
    let own = port.clone();
    let server = Server::start(move |r| {
        let realm =
            format!("Bearer realm=\"http://127.0.0.1:{}/token\",service=\"here\"", own.lock().unwrap());
        match (r.path.as_str(), r.header("authorization")) {
            (p, Some("Basic bWU6c2VjcmV0"))
                if p.starts_with("/token?service=here&scope=repository%3Aapp%3Apull") =>
            {
                ok("application/json", br#"{"token": "T0"}"#)
            }
            (p, _) if p.starts_with("/token") => status(401, &[]),
            (_, Some("Bearer T0")) => image.answer(r),
            _ => status(401, &[("WWW-Authenticate", &realm)]),
        }
    });
    *port.lock().unwrap() = server.port;
    let failed = pull_from(&scratch, &server.name(), &Options::default()).unwrap_err();
    assert!(failed.to_string().contains("podman login"), "{failed}");
    pull_from(&scratch, &server.name(), &password()).unwrap();
    assert!(has_image(&scratch));
}

#[test]
fn a_password_without_a_token_server() {
    let (scratch, image) = (Scratch::new(), Image::new());
    let server = Server::start(move |r| match r.header("authorization") {
        Some("Basic bWU6c2VjcmV0") => image.answer(r),
        _ => status(401, &[("WWW-Authenticate", "Basic realm=\"x\"")]),
    });
    let file = scratch.path.join("auth.json");
    let auths = json!({"auths": {format!("127.0.0.1:{}", server.port): {"auth": "bWU6c2VjcmV0"}}});
    std::fs::write(&file, auths.to_string()).unwrap();
    pull_from(&scratch, &server.name(), &Options { auth_file: Some(file), ..Options::default() }).unwrap();
}

/// CVE-2026-65388, CVE-2020-15157: the realm of another owner, and a redirect to another server, never see a secret.
#[test]
fn secrets_stay_with_the_registry() {
    let (scratch, image) = (Scratch::new(), Image::new());
    let elsewhere = Server::start(|_| ok("application/json", br#"{"token": "T1"}"#));
    // The same machine by another name: another owner, as far as names tell.
    let realm = format!("Bearer realm=\"http://localhost:{}/token\",service=\"x\"", elsewhere.port);
    let server = Server::start(move |r| match r.header("authorization") {
        Some("Bearer T1") => image.answer(r),
        _ => status(401, &[("WWW-Authenticate", &realm)]),
    });
    pull_from(&scratch, &server.name(), &password()).unwrap();
    assert_eq!(told(&elsewhere), Vec::<String>::new());
    assert!(told(&server).iter().all(|a| a == "Bearer T1"), "{:?}", told(&server));

    let (scratch, image) = (Scratch::new(), Image::new());
    let other = image.clone();
    let elsewhere = Server::start(move |r| other.answer(r));
    let to = format!("http://127.0.0.1:{}", elsewhere.port);
    let server = Server::start(move |r| match (r.header("authorization"), r.path.contains("/blobs/")) {
        (Some("Basic bWU6c2VjcmV0"), true) => status(307, &[("Location", &format!("{to}{}", r.path))]),
        (Some("Basic bWU6c2VjcmV0"), false) => image.answer(r),
        _ => status(401, &[("WWW-Authenticate", "Basic realm=\"x\"")]),
    });
    pull_from(&scratch, &server.name(), &password()).unwrap();
    assert!(!elsewhere.requests().is_empty());
    assert_eq!(told(&elsewhere), Vec::<String>::new());

    // A mirror that asks for a password is another server, with which the one for the registry is not tried.
    let (scratch, image) = (Scratch::new(), Image::new());
    let mirror = Server::start(|_| status(401, &[("WWW-Authenticate", "Basic realm=\"x\"")]));
    let server = Server::start(move |r| match r.header("authorization") {
        Some("Basic bWU6c2VjcmV0") => image.answer(r),
        _ => status(401, &[("WWW-Authenticate", "Basic realm=\"x\"")]),
    });
    let mirrors = vec![format!("127.0.0.1:{}", mirror.port)];
    pull_from(&scratch, &server.name(), &Options { mirrors, ..password() }).unwrap();
    assert!(!mirror.requests().is_empty());
    assert_eq!(told(&mirror), Vec::<String>::new());
}

#[test]
fn what_a_registry_may_not_do() {
    type Bad = fn(&Request) -> Answer;
    let all: [(&str, Bad); 8] = [
        ("a web page", |r| match r.path.as_str() {
            "/v2/" => status(200, &[]),
            _ => ok("text/html; charset=utf-8", b"<html>"),
        }),
        ("a token of 70000 bytes", |r| match r.path.starts_with("/token") {
            true => ok("application/json", json!({"token": "x".repeat(70_000)}).to_string().as_bytes()),
            false => {
                let realm = format!("Bearer realm=\"http://{}/token\"", r.header("host").unwrap());
                status(401, &[("WWW-Authenticate", &realm)])
            }
        }),
        ("redirects", |r| status(302, &[("Location", &r.path)])),
        ("no usable realm", |_| status(401, &[("WWW-Authenticate", "Bearer realm=\"/etc/passwd\"")])),
        ("without TLS", |_| status(401, &[("WWW-Authenticate", "Bearer realm=\"http://example.com/t\"")])),
        ("does not say what it wants", |_| status(401, &[])),
        ("a redirect without a place", |_| status(307, &[])),
        ("file", |_| status(307, &[("Location", "file:///etc/passwd")])),
    ];
    for (said, bad) in all {
        let scratch = Scratch::new();
        let server = Server::start(bad);
        let failed = pull_from(&scratch, &server.name(), &password()).unwrap_err();
        assert!(failed.to_string().contains(said), "{said}: {failed}");
    }
    // A manifest without an end is read up to a limit.
    let scratch = Scratch::new();
    let server = Server::start(|r| match r.path.as_str() {
        "/v2/" => ok("application/json", b"{}"),
        _ => ok(MANIFEST, &vec![b' '; 8 << 20]),
    });
    assert_eq!(pull_from(&scratch, &server.name(), &Options::default()).unwrap_err().kind(), Kind::Limit);
}

#[test]
fn an_index_leads_to_this_machines_image_and_mirrors_come_first() {
    let (scratch, image) = (Scratch::new(), Image::new());
    let host = coracle_image::platform::Platform::host();
    let one = json!({"mediaType": MANIFEST, "digest": sha256(&image.manifest), "size": image.manifest.len(),
        "platform": {"os": "linux", "architecture": host.architecture}});
    let mut other = one.clone();
    other["platform"] = json!({"os": "plan9", "architecture": "mips"});
    other["digest"] = json!(sha256(b"x"));
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, one]}).to_string();
    let copy = image.clone();
    let server = Server::start(move |r| match r.path.as_str() {
        "/v2/app/manifests/1" => ok(INDEX, index.as_bytes()),
        _ => copy.answer(r),
    });
    let pulled = pull_from(&scratch, &server.name(), &Options::default()).unwrap();
    assert_eq!(pulled.digest.to_string(), sha256(&image.manifest));
    // A mirror that has it is asked instead; one that is down is passed over.
    let mirror = Server::start(move |r| image.answer(r));
    let mirrors = vec!["127.0.0.1:9".to_owned(), format!("127.0.0.1:{}", mirror.port)];
    let before = server.requests().len();
    pull_from(&scratch, &server.name(), &Options { mirrors, ..Options::default() }).unwrap();
    assert_eq!(server.requests().len(), before);
    assert!(!mirror.requests().is_empty());
}

/// An image of three layers, of which no one is answered before all are asked for; and two who pull it at once.
#[test]
fn layers_come_at_once_and_each_only_once() {
    let (scratch, mut image) = (Scratch::new(), Image::new());
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap().to_owned();
    let mut config: serde_json::Value = serde_json::from_slice(&image.blobs[&config]).unwrap();
    for i in 0..2 {
        let tar = common::Tar::new().file(&format!("more{i}"), "x").end();
        config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(json!(sha256(&tar)));
        let mut layer = manifest["layers"][0].clone();
        layer["digest"] = json!(sha256(&tar));
        layer["size"] = json!(tar.len());
        manifest["layers"].as_array_mut().unwrap().push(layer);
        image.blobs.insert(sha256(&tar), tar);
    }
    let config = config.to_string().into_bytes();
    manifest["config"]["digest"] = json!(sha256(&config));
    manifest["config"]["size"] = json!(config.len());
    let config_path = format!("/v2/app/blobs/{}", sha256(&config));
    image.blobs.insert(sha256(&config), config);
    image.manifest = manifest.to_string().into_bytes();
    let (asked, all_asked) = (Mutex::new(0), std::sync::Condvar::new());
    let server = Server::start(move |r| {
        if r.path.contains("/blobs/") && r.path != config_path {
            let mut count = asked.lock().unwrap();
            *count += 1;
            all_asked.notify_all();
            let patience = std::time::Duration::from_secs(20);
            let (count, _) = all_asked.wait_timeout_while(count, patience, |n| *n < 3).unwrap();
            if *count < 3 {
                return status(500, &[]);
            }
        }
        image.answer(r)
    });
    std::thread::scope(|scope| {
        let pulls =
            [(); 2].map(|()| scope.spawn(|| pull_from(&scratch, &server.name(), &Options::default())));
        pulls.into_iter().for_each(|p| drop(p.join().unwrap().unwrap()));
    });
    assert!(has_image(&scratch));
    let mut blobs: Vec<String> =
        server.requests().into_iter().map(|r| r.path).filter(|p| p.contains("/blobs/")).collect();
    blobs.sort();
    assert_eq!(blobs.len(), 4, "{blobs:?}");
    blobs.dedup();
    assert_eq!(blobs.len(), 4, "a blob was fetched twice");
}
