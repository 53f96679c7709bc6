//! A site on loopback.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A site being served; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Site {
    pub(crate) async fn start(router: Router) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Site { address, task }
    }

    /// URL of a path, which begins with a slash.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}
