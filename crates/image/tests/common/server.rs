//! A small server that plays registries, with TLS or without, and an image for it to have.

use super::{Tar, gzip, sha256};
use serde_json::json;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A request as it came: its path with query, and its headers in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[derive(Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Bytes after which the connection breaks.
    pub(crate) cut: Option<usize>,
}

pub(crate) fn ok(media_type: &str, body: &[u8]) -> Answer {
    let headers = vec![("Content-Type".into(), media_type.into())];
    Answer { status: 200, headers, body: body.to_vec(), cut: None }
}

pub(crate) fn status(status: u16, headers: &[(&str, &str)]) -> Answer {
    let headers = headers.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
    Answer { status, headers, ..Answer::default() }
}

/// A server whose answers are a function; it remembers what it was asked.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::over(Some, answer)
    }

    /// Answers behind TLS.
    pub(crate) fn tls(
        config: rustls::ServerConfig,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let config = Arc::new(config);
        let greet = move |stream| {
            let session = rustls::ServerConnection::new(config.clone()).ok()?;
            Some(rustls::StreamOwned::new(session, stream))
        };
        Self::over(greet, answer)
    }

    fn over<S: Read + Write + 'static>(
        greet: impl Fn(TcpStream) -> Option<S> + Send + Sync + 'static,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, all) = (seen.clone(), Arc::new((greet, answer)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, all) = (log.clone(), all.clone());
                std::thread::spawn(move || all.0(stream).map(|stream| serve(stream, &log, &all.1)));
            }
        });
        Self { port, seen }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn name(&self) -> String {
        format!("127.0.0.1:{}/app:1", self.port)
    }
}

fn serve(stream: impl Read + Write, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Answer) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        // A TLS greeting is no request: the client is to try without.
        if reader.read_until(b'\n', &mut line).is_err()
            || !line.starts_with(b"GET ") && !line.starts_with(b"POST ")
        {
            let _ = reader.get_mut().write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
            return;
        }
        let path = String::from_utf8_lossy(&line).split(' ').nth(1).unwrap_or("").to_owned();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).is_err() || line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
        }
        let request = Request { path, headers };
        let a = answer(&request);
        log.lock().unwrap().push(request);
        let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", a.status, a.body.len());
        a.headers.iter().for_each(|(n, v)| head += &format!("{n}: {v}\r\n"));
        let body = &a.body[..a.cut.unwrap_or(a.body.len()).min(a.body.len())];
        let stream = reader.get_mut();
        if stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(body)).is_err()
            || a.cut.is_some()
        {
            return;
        }
    }
}

/// An image of one layer: its manifest and blobs.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) manifest: Vec<u8>,
    pub(crate) blobs: HashMap<String, Vec<u8>>,
    pub(crate) layer: String,
}

impl Image {
    pub(crate) fn new() -> Self {
        let noise: String = (0..40_000u32)
            .map(|i| char::from(33 + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 90))
            .collect();
        let tar = Tar::new().file("f", &noise).end();
        let layer = gzip(&tar);
        let config =
            json!({"os": "linux", "architecture": coracle_image::platform::Platform::host().architecture,
            "config": {}, "rootfs": {"type": "layers", "diff_ids": [sha256(&tar)]}})
            .to_string()
            .into_bytes();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config), "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": sha256(&layer), "size": layer.len(),
                "urls": ["http://127.0.0.1:9/evil"]}]})
        .to_string()
        .into_bytes();
        let name = sha256(&layer);
        let blobs = [(sha256(&config), config), (name.clone(), layer)].into();
        Self { manifest, blobs, layer: name }
    }

    /// As an honest registry would answer.
    pub(crate) fn answer(&self, request: &Request) -> Answer {
        let path = request.path.as_str();
        if path == "/v2/" {
            return ok("application/json", b"{}");
        }
        if path.starts_with("/v2/app/manifests/") {
            return ok(MANIFEST, &self.manifest);
        }
        let blob = path.strip_prefix("/v2/app/blobs/").and_then(|d| self.blobs.get(d));
        let Some(blob) = blob else { return status(404, &[]) };
        let from = request
            .header("range")
            .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        match from {
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
                Answer { body: blob[from..].to_vec(), ..status(206, &[("Content-Range", &range)]) }
            }
            None => ok("application/octet-stream", blob),
        }
    }
}
