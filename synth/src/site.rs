//! Serving a site over HTTP: a router on an address, and any folder as a site.

use std::io;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A site being served. It stops when dropped; [`stop`](Server::stop) also waits for requests under way.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Serves `router` on `address`; port 0 takes a free port.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(router: Router, address: SocketAddr) -> io::Result<Server> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            axum::serve(listener, router).with_graceful_shutdown(stopped).await
        });
        Ok(Server { address, stop, task })
    }

    /// The address in use.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL of the root, such as `http://127.0.0.1:8080/`.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Answers the requests under way, then stops.
    ///
    /// # Errors
    /// What ended the server before.
    pub async fn stop(self) -> io::Result<()> {
        let _ = self.stop.send(());
        self.task.await.map_err(io::Error::other)?
    }

    /// Serves until it fails or the process ends.
    ///
    /// # Errors
    /// What ended the server.
    pub async fn wait(self) -> io::Result<()> {
        let Server { stop, task, .. } = self;
        let ended = task.await;
        drop(stop);
        ended.map_err(io::Error::other)?
    }
}

/// A folder as a site: files by path, `index.html` for a folder, nothing outside of it.
pub fn static_site(folder: impl Into<PathBuf>) -> Router {
    Router::new().fallback(static_file).with_state(Arc::new(folder.into()))
}

async fn static_file(State(folder): State<Arc<PathBuf>>, uri: Uri) -> Response {
    match read_inside(&folder, uri.path()).await {
        Ok((path, bytes)) => ([(header::CONTENT_TYPE, content_type(&path))], bytes).into_response(),
        Err(_) => (StatusCode::NOT_FOUND, "not found\n").into_response(),
    }
}

async fn read_inside(folder: &Path, url_path: &str) -> io::Result<(PathBuf, Vec<u8>)> {
    let outside = || io::Error::from(io::ErrorKind::NotFound);
    let decoded = percent_decode_str(url_path).decode_utf8().map_err(|_| outside())?;
    let relative = Path::new(decoded.trim_start_matches('/'));
    if decoded.contains('\0') || !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(outside());
    }
    let mut path = tokio::fs::canonicalize(folder.join(relative)).await?;
    if tokio::fs::metadata(&path).await?.is_dir() {
        path = tokio::fs::canonicalize(path.join("index.html")).await?;
    }
    // A link inside the folder may point out of it.
    if !path.starts_with(tokio::fs::canonicalize(folder).await?) {
        return Err(outside());
    }
    let bytes = tokio::fs::read(&path).await?;
    Ok((path, bytes))
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        // Without a charset: the document says which.
        "html" | "htm" => "text/html",
        "txt" => "text/plain",
        "md" => "text/markdown; charset=utf-8",
        "css" => "text/css",
        "js" => "text/javascript",
        "json" => "application/json",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    }
}
