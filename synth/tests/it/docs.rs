//! Real documentation: PostgreSQL's manual as Debian and Ubuntu package it, over a thousand pages.

use std::path::PathBuf;

use webdancer_synth::crawl::CrawlConfig;
use webdancer_synth::site::{Server, static_site};

use crate::memory_log::{at, crawl, get, loopback, raw};

/// The manual, of the oldest version that is installed. Without one its tests are skipped, and say so; in CI they fail.
#[expect(clippy::print_stderr, reason = "says that a test was skipped")]
pub(crate) fn manual() -> Option<PathBuf> {
    let found = (15..30).map(|version| PathBuf::from(format!("/usr/share/doc/postgresql-doc-{version}/html")));
    let manual = found.into_iter().find(|folder| folder.join("index.html").is_file());
    if manual.is_none() {
        let missing = "PostgreSQL's manual is missing; `deploy/setup test` installs postgresql-doc-15 or a later one";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
        eprintln!("skipped: {missing}");
    }
    manual
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "says how fast it was")]
async fn the_postgresql_documentation_is_crawled_completely() {
    let Some(folder) = manual() else { return };
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let documents = files.filter(|file| file.extension().is_some_and(|extension| extension == "html")).count() as u64;
    assert!(documents > 1_000, "{documents} documents");
    let server = Server::start(static_site(&folder), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let root = format!("{}index.html", server.url());
    let (report, pages, _) = crawl(&root, CrawlConfig { depth_max: 20, ..loopback().impolite(16) }).await;
    let base = server.url();
    server.stop().await.unwrap();
    let per_second = report.pages * 1000 / report.elapsed_ms.max(1);
    eprintln!("{} pages, {} bytes, {per_second} pages/s", report.pages, report.bytes);

    assert_eq!((report.pages, report.errors, report.duplicates), (documents, 0, 0));
    assert_eq!(report.by_status, [(200, documents)].into());
    let links: usize = pages.values().map(|page| page.links.len()).sum();
    assert!(links > 10_000, "{links} links");
    assert!(pages.values().all(|page| page.text.as_ref().is_some_and(|text| text.len() > 20)));

    let page = at(&pages, &base, "queries-order.html");
    assert_eq!(page.title.as_deref(), Some("7.5. Sorting Rows (ORDER BY)"));
    assert_eq!(page.language.as_deref(), Some("eng"));
    let text = page.text.as_deref().unwrap();
    assert!(text.contains("SELECT a, b FROM table1 ORDER BY a + b, c;"), "{text}");
    // A table with its header.
    let types = at(&pages, &base, "datatype-numeric.html").text.as_deref().unwrap();
    assert!(types.contains("| Name | Storage Size | Description | Range |"), "{types}");
    assert!(types.contains("| `smallint` | 2 bytes | small-range integer | \\-32768 to +32767 |"), "{types}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_site_gives_nothing_outside_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    std::fs::create_dir_all(site.join("sub")).unwrap();
    std::fs::write(folder.path().join("secret.txt"), "secret").unwrap();
    std::fs::write(site.join("index.html"), "<p>index</p>").unwrap();
    std::fs::write(site.join("sub/index.html"), "<p>sub</p>").unwrap();
    std::fs::write(site.join("a b.txt"), "spaced").unwrap();
    std::os::unix::fs::symlink(folder.path().join("secret.txt"), site.join("link.txt")).unwrap();
    let server = Server::start(static_site(&site), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    for (path, status, body) in [
        ("", 200, "<p>index</p>"),
        ("sub/", 200, "<p>sub</p>"),
        ("a%20b.txt", 200, "spaced"),
        ("%2e%2e/secret.txt", 404, "not found\n"),
        ("..%2fsecret.txt", 404, "not found\n"),
        ("sub/..%2f..%2fsecret.txt", 404, "not found\n"),
        ("link.txt", 404, "not found\n"),
        ("%2fetc/passwd", 404, "not found\n"),
        ("a%00b", 404, "not found\n"),
        ("%ff", 404, "not found\n"),
    ] {
        let response = get(format!("{}{path}", server.url())).await;
        assert_eq!((response.status().as_u16(), response.text().await.unwrap().as_str()), (status, body), "{path}");
    }
    // A client that does not resolve dot segments itself.
    assert!(raw(server.address(), "/../secret.txt").await.starts_with("HTTP/1.1 404"));
    assert!(raw(server.address(), "/sub/../../secret.txt").await.starts_with("HTTP/1.1 404"));
    server.stop().await.unwrap();
}
