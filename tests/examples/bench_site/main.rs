//! A folder as a site on loopback, and how fast it can be read at all, for `tests/bench/crawl.py`.
//!
//! `bench_site serve FOLDER` prints the site's URL and serves until its standard input ends. `bench_site take ADDRESS FOLDER
//! CONNECTIONS` gets every HTML file of the folder from there, throws it away, and prints pages and bytes as JSON.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use webdancer_synth::site::{Server, static_site};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve", folder] => serve(folder).await,
        ["take", address, folder, connections] => take(address, Path::new(folder), connections.parse()?).await,
        _ => Err("usage: bench_site serve FOLDER | take ADDRESS FOLDER CONNECTIONS".into()),
    }
}

async fn serve(folder: &str) -> Result<()> {
    let server = Server::start(static_site(folder), "127.0.0.1:0".parse()?).await?;
    writeln!(std::io::stdout(), "{}", server.url())?;
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    server.stop().await?;
    Ok(())
}

async fn take(address: &str, folder: &Path, connections: usize) -> Result<()> {
    let mut paths = Vec::new();
    html_files(folder, "", &mut paths)?;
    let (paths, next, bytes) = (Arc::new(paths), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let tasks = (0..connections).map(|_| {
        let (address, paths, next, bytes) = (address.to_string(), paths.clone(), next.clone(), bytes.clone());
        tokio::spawn(async move {
            let mut connection = TcpStream::connect(&address).await?;
            let mut buffer = Vec::new();
            while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                bytes.fetch_add(get(&mut connection, &address, path, &mut buffer).await?, Ordering::Relaxed);
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    writeln!(std::io::stdout(), "{}", json!({"pages": paths.len(), "bytes": bytes.load(Ordering::Relaxed)}))?;
    Ok(())
}

/// Paths of the HTML files of a folder, each with a slash before it.
fn html_files(folder: &Path, prefix: &str, paths: &mut Vec<String>) -> Result<()> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<_>>()?;
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_dir() {
            html_files(&entry, &format!("{prefix}/{name}"), paths)?;
        } else if name.ends_with(".html") {
            paths.push(format!("{prefix}/{name}"));
        }
    }
    Ok(())
}

/// One GET on a connection that stays open; the bytes of the body, which must have a length.
async fn get(connection: &mut TcpStream, host: &str, path: &str, buffer: &mut Vec<u8>) -> Result<u64> {
    connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    buffer.clear();
    let head = loop {
        if connection.read_buf(buffer).await? == 0 {
            return Err(format!("{path}: the connection was closed").into());
        }
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default()).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        return Err(format!("{path}: {}", text.lines().next().unwrap_or_default()).into());
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.ok_or_else(|| format!("{path}: no content-length"))?.trim().parse()?;
    while buffer.len() < head + length {
        if connection.read_buf(buffer).await? == 0 {
            return Err(format!("{path}: the body broke off").into());
        }
    }
    Ok(length as u64)
}
