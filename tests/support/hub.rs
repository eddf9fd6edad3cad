//! A server that speaks as much of the hub as a download needs, with the faults that tests ask for.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::json;
use sha2::{Digest, Sha256};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server holds, and how it misbehaves.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) files: HashMap<String, Vec<u8>>,
    /// Files that break off after so many bytes, and how often.
    pub(crate) breaks: HashMap<String, (usize, usize)>,
    /// Whether everything is refused once a file broke off.
    pub(crate) falls_silent: bool,
    /// Files of which the server sends other bytes than it lists.
    pub(crate) changed: HashMap<String, Vec<u8>>,
    /// The status of every answer, instead of an answer.
    pub(crate) refuses: Option<u16>,
    /// Requests so far: path and first byte.
    pub(crate) requests: Vec<(String, usize)>,
    /// Tokens that were shown.
    pub(crate) tokens: Vec<String>,
}

pub(crate) struct Hub {
    pub(crate) endpoint: String,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream.unwrap(), &shared));
            }
        });
        Self { endpoint, state }
    }

    /// A server with the files of a folder.
    pub(crate) fn of(folder: &Path) -> Self {
        let hub = Self::new();
        hub.add(folder, "");
        hub
    }

    fn add(&self, folder: &Path, prefix: &str) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().to_string_lossy());
            if path.is_dir() {
                self.add(&path, &format!("{name}/"));
            } else {
                self.state.lock().unwrap().files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }

    /// How often a file's bytes were asked for, and from which on.
    pub(crate) fn starts(&self, file: &str) -> Vec<usize> {
        let state = self.state.lock().unwrap();
        let wanted = format!("/resolve/{COMMIT}/{file}");
        state.requests.iter().filter(|(path, _)| path.ends_with(&wanted)).map(|(_, start)| *start).collect()
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.lock().unwrap().requests.len()
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Answers one request and hangs up.
fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let target = first.split(' ').nth(1).unwrap().to_owned();
    let path = target.split('?').next().unwrap().to_owned();
    let mut range = None;
    let mut token = None;
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap();
        match name.to_lowercase().as_str() {
            "range" => range = Some(value.trim().trim_start_matches("bytes=").to_owned()),
            "authorization" => token = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let (start, end) = match &range {
        Some(range) => {
            let (start, end) = range.split_once('-').unwrap();
            (start.parse().unwrap(), end.parse::<usize>().ok())
        }
        None => (0, None),
    };
    let mut state = state.lock().unwrap();
    state.tokens.extend(token);
    // Requests for the first byte only ask how long a file is.
    if end.is_none() {
        state.requests.push((path.clone(), start));
    }
    if let Some(status) = state.refuses {
        return send(&mut stream, &format!("{status} Refused"), &[], b"no");
    }
    if path.starts_with("/api/models/some/model/revision/") {
        let siblings: Vec<_> = (state.files.iter())
            .map(|(name, bytes)| {
                let lfs = name
                    .ends_with("safetensors")
                    .then(|| json!({"sha256": hash(bytes), "size": bytes.len()}));
                json!({"rfilename": name, "size": bytes.len(), "blobId": &hash(bytes)[..40], "lfs": lfs})
            })
            .collect();
        let body = json!({"sha": COMMIT, "siblings": siblings}).to_string();
        return send(&mut stream, "200 OK", &[], body.as_bytes());
    }
    let name = path.strip_prefix(&format!("/some/model/resolve/{COMMIT}/")).map(str::to_owned);
    let Some((name, listed)) =
        name.and_then(|name| state.files.get(&name).map(|bytes| (name.clone(), bytes)))
    else {
        return send(&mut stream, "404 Not Found", &[], b"no such file");
    };
    let etag = if name.ends_with("safetensors") { hash(listed) } else { hash(listed)[..40].to_owned() };
    let bytes = state.changed.get(&name).unwrap_or(listed).clone();
    if start >= bytes.len() {
        return send(&mut stream, "416 Range Not Satisfiable", &[], b"");
    }
    let end = end.map_or(bytes.len(), |end| (end + 1).min(bytes.len()));
    let headers = [
        format!("ETag: \"{etag}\""),
        format!("X-Repo-Commit: {COMMIT}"),
        format!("Content-Range: bytes {start}-{}/{}", end - 1, bytes.len()),
    ];
    let mut sent = bytes[start..end].to_vec();
    let length = sent.len();
    let State { breaks, refuses, falls_silent, .. } = &mut *state;
    if let Some((after, times)) = breaks.get_mut(&name).filter(|_| length > 1)
        && *times > 0
        && start < *after
    {
        *times -= 1;
        sent.truncate(*after - start);
        if *falls_silent {
            *refuses = Some(503);
        }
    }
    drop(state);
    send_part(&mut stream, "206 Partial Content", &headers, &sent, length);
}

fn send(stream: &mut TcpStream, status: &str, headers: &[String], body: &[u8]) {
    send_part(stream, status, headers, body, body.len());
}

/// Sends a body that says it has so many bytes.
fn send_part(stream: &mut TcpStream, status: &str, headers: &[String], body: &[u8], length: usize) {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    let _ = stream.write_all(body);
    let _ = stream.flush();
    let _ = stream.shutdown(Shutdown::Write);
}
