//! Sites that are odd, broken or hostile.

use std::io::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use webdancer_synth::crawl::{Crawl, CrawlConfig, CrawlError, Scope, Skip};
use webdancer_synth::site::Server;

use crate::memory_log::{MemoryLog, at, crawl, loopback};

const LINKS: &[&str] = &[
    "loop",
    "hop",
    "to-private",
    "to-metadata",
    "to-ftp",
    "to-nowhere",
    "to-forbidden",
    "windows-1252",
    "shift-jis",
    "unknown-charset",
    "undeclared",
    "marked",
    "bomb",
    "endless",
    "slow-headers",
    "drip",
    "broken",
    "nul",
    "binary",
    "untyped",
    "based",
    "twin-1",
    "twin-2",
    "variant?x=1",
    "claims-other",
    "%e9",
    "forbidden",
    "missing",
    "error",
    "nested",
    "empty",
    "tracked?utm_source=a",
    "tracked?utm_medium=b",
    "plain.txt",
    "notes.md",
    "mailto:a@example.com",
    "javascript:void(0)",
    "ftp://example.com/",
    "#part",
    "http://[broken",
];

fn html(body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, "text/html")], body.into()).into_response()
}

fn typed(content_type: &'static str, body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body.into()).into_response()
}

fn redirect(to: &str) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, to.to_string())]).into_response()
}

/// A gzip stream of 64 MiB of one letter.
static BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..64 {
        encoder.write_all(&[b'a'; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap()
});

fn ok(chunk: impl Into<axum::body::Bytes>) -> Result<axum::body::Bytes, std::io::Error> {
    Ok(chunk.into())
}

async fn answer(uri: Uri, headers: HeaderMap) -> Response {
    let host = headers[header::HOST].to_str().unwrap().to_string();
    match uri.path().trim_start_matches('/') {
        "" => {
            let links: String = LINKS.iter().map(|link| format!("<a href=\"{link}\">{link}</a>\n")).collect();
            html(format!("<title>Root</title><p>Start here.</p>{links}"))
        }
        "robots.txt" => "User-agent: *\nDisallow: /forbidden\nDisallow: /secret\n".into_response(),
        "loop" => redirect("/loop"),
        "hop" => redirect("windows-1252#part"),
        "to-private" => redirect("http://127.0.0.2:9/"),
        "to-metadata" => redirect("http://169.254.169.254/latest/"),
        "to-ftp" => redirect("ftp://example.com/"),
        "to-nowhere" => StatusCode::FOUND.into_response(),
        "to-forbidden" => redirect("/secret"),
        "windows-1252" => {
            typed("text/html; charset=windows-1252", b"<title>Caf\xe9</title><p>na\xefve \x80 5</p>".to_vec())
        }
        "shift-jis" => {
            let (body, _, _) =
                encoding_rs::SHIFT_JIS.encode("<meta charset=Shift_JIS><title>日本</title><p>日本語のページ</p>");
            html(body.into_owned())
        }
        "unknown-charset" => {
            typed("text/html; charset=klingon", "<meta charset='utf-8'><title>é</title><p>déjà vu</p>")
        }
        "undeclared" => {
            let (body, _, _) = encoding_rs::WINDOWS_1251
                .encode("<title>Москва</title><p>Москва является столицей России и крупнейшим городом страны.</p>");
            html(body.into_owned())
        }
        "marked" => {
            typed("text/html; charset=windows-1252", b"\xef\xbb\xbf<title>marked</title><p>caf\xc3\xa9</p>".to_vec())
        }
        "bomb" => {
            let headers = [(header::CONTENT_TYPE, "text/html"), (header::CONTENT_ENCODING, "gzip")];
            (headers, BOMB.as_slice()).into_response()
        }
        "endless" => html(Body::from_stream(stream::repeat_with(|| ok(vec![b'a'; 8192])))),
        "slow-headers" => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            html("late")
        }
        "drip" => html(Body::from_stream(stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((ok("a"), ()))
        }))),
        "broken" => html(Body::from_stream(stream::unfold(0, |sent| async move {
            // The headers must be out before the connection goes.
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some((if sent == 0 { ok("<p>half") } else { Err(std::io::Error::other("gone")) }, sent + 1))
        }))),
        "nul" => typed("text/plain", "a\0b\u{7}c\r\nd  \r\n\r\n\r\n\r\ne"),
        "binary" => typed("application/octet-stream", vec![0, 159, 146, 150]),
        "untyped" => Body::from("<title>Untyped</title><p>Still a page.</p>").into_response(),
        "based" => html(
            "<base href='/other/place/'><title>Based</title><p>Go <a href='leaf'>on</a>, <a href='../leaf'>up</a>.</p>",
        ),
        "other/place/leaf" => html("<title>Leaf</title><p>A leaf.</p>"),
        "twin-1" | "twin-2" => html("<title>Twin</title><p>We are the same.</p><a href='child'>c</a>"),
        "variant" => {
            html("<link rel='canonical' href='/variant'><title>Variant</title><p>One page, many addresses.</p>")
        }
        "claims-other" => {
            html("<link rel='canonical' href='http://example.com/x'><title>Claims</title><p>Not a page of theirs.</p>")
        }
        "%E9" => html("<title>Escaped</title><p>Not UTF-8.</p>"),
        "error" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "nested" => html("<div>".repeat(100_000)),
        "empty" => html(""),
        "tracked" => html("<title>Tracked</title><p>Who sent you?</p>"),
        "plain.txt" => typed("text/plain; charset=utf-8", "Just <b>text</b>.\nhttp://127.0.0.1/no-link"),
        "notes.md" => typed("text/markdown", "# Notes\n\nSome *notes*."),
        _ => {
            assert!(!uri.path().contains("forbidden") && !uri.path().contains("secret"), "{host}{uri} was fetched");
            StatusCode::NOT_FOUND.into_response()
        }
    }
}

async fn serve(router: Router) -> Server {
    Server::start(router, "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_oddity_is_one_page_with_its_reason() {
    assert!(BOMB.len() < 1 << 20, "it must fit the limit while packed");
    let server = serve(Router::new().fallback(answer)).await;
    let root = server.url();
    let mut config = CrawlConfig { scope: Scope::Any, ..loopback().impolite(16) };
    config.fetch.request_timeout_ms = 1_000;
    config.fetch.body_bytes_max = 1 << 20;
    config.fetch.retries_max = 0;
    let (report, pages, _) = crawl(&root, config).await;

    // Path; status, title, text.
    for (path, status, title, text) in [
        ("windows-1252", 200, Some("Café"), Some("naïve € 5")),
        ("shift-jis", 200, Some("日本"), Some("日本語のページ")),
        ("unknown-charset", 200, Some("é"), Some("déjà vu")),
        ("undeclared", 200, Some("Москва"), Some("Москва является столицей России и крупнейшим городом страны.")),
        ("marked", 200, Some("marked"), Some("café")),
        ("nul", 200, None, Some("abc\nd\n\ne")),
        ("untyped", 200, Some("Untyped"), Some("Still a page.")),
        ("based", 200, Some("Based"), Some("Go on, up.")),
        ("other/place/leaf", 200, Some("Leaf"), Some("A leaf.")),
        ("variant?x=1", 200, Some("Variant"), Some("One page, many addresses.")),
        ("claims-other", 200, Some("Claims"), Some("Not a page of theirs.")),
        ("%E9", 200, Some("Escaped"), Some("Not UTF-8.")),
        ("empty", 200, None, None),
        ("tracked", 200, Some("Tracked"), Some("Who sent you?")),
        ("plain.txt", 200, None, Some("Just <b>text</b>.\nhttp://127.0.0.1/no-link")),
        ("notes.md", 200, Some("Notes"), Some("# Notes\n\nSome *notes*.")),
    ] {
        let page = at(&pages, &root, path);
        let found = (page.status, page.title.as_deref(), page.text.as_deref(), page.error.as_deref());
        assert_eq!(found, (status, title, text, None), "{path}");
    }
    // Path; status, reason.
    for (path, status, error) in [
        ("loop", 302, "more than 5 redirects"),
        ("to-private", 302, "redirects to http://127.0.0.2:9/: 127.0.0.2 is not a public address"),
        ("to-metadata", 302, "redirects to http://169.254.169.254/latest/: 169.254.169.254 is not a public address"),
        ("to-ftp", 302, "status 302 without a Location that can be followed"),
        ("to-nowhere", 302, "status 302 without a Location that can be followed"),
        ("bomb", 200, "larger than 1048576 bytes"),
        ("endless", 200, "larger than 1048576 bytes"),
        ("slow-headers", 0, "no complete answer within 1000 ms"),
        ("drip", 0, "no complete answer within 1000 ms"),
        ("binary", 200, "no text is taken from application/octet-stream"),
        ("missing", 404, "status 404"),
        ("error", 500, "status 500"),
        ("nested", 200, "elements are nested more than 512 deep"),
    ] {
        let page = at(&pages, &root, path);
        let found =
            (page.status, page.text.as_deref(), page.error.as_deref(), page.links.len(), page.digest.as_deref());
        assert_eq!(found, (status, None, Some(error), 0, None), "{path}");
    }
    assert_eq!(
        at(&pages, &root, "to-forbidden").error,
        Some(format!("redirects to {root}secret: robots.txt disallows it"))
    );
    assert!(at(&pages, &root, "broken").error.as_deref().unwrap().starts_with("the body broke off: "));

    assert_eq!(at(&pages, &root, "hop").final_url, format!("{root}windows-1252"));
    assert_eq!(at(&pages, &root, "based").links, [format!("{root}other/place/leaf"), format!("{root}other/leaf")]);
    assert_eq!(at(&pages, &root, "variant?x=1").final_url, format!("{root}variant"));
    assert_eq!(at(&pages, &root, "variant").depth, 2);
    assert_eq!(at(&pages, &root, "claims-other").final_url, format!("{root}claims-other"));
    assert_eq!(at(&pages, &root, "twin-1").digest, at(&pages, &root, "twin-2").digest);
    assert_eq!(at(&pages, &root, "undeclared").language.as_deref(), Some("rus"));
    // Once each: links as written in the page, canonical, without repeats and other schemes.
    assert_eq!(at(&pages, &root, "").links.len(), 34);

    // The 33 allowed links and the root; other/place/leaf, other/leaf, variant, child.
    assert_eq!(report.pages, 38);
    assert_eq!(report.skipped, [(Skip::Robots, 1)].into());
    // windows-1252 by its own URL and by the hop; the twins; variant by two.
    assert_eq!(report.duplicates, 3);
    assert_eq!(report.by_status, [(0, 2), (200, 26), (302, 6), (404, 3), (500, 1)].into());
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_to_be_expensive_is_a_page_with_its_reason() {
    let site = |uri: Uri| async move {
        let opened = || (0..400).map(|number| format!("<font class=c{number}>")).collect::<String>();
        match uri.path() {
            "/" => html("<p>Links.</p><a href=formatting>f</a><a href=elements>e</a><a href=brotli>b</a>"),
            "/formatting" => html(format!("<div>{}</div>{}", opened(), "<p>x".repeat(10_000))),
            "/elements" => html("<br>".repeat(600_000)),
            "/brotli" => ([(header::CONTENT_ENCODING, "br")], html(vec![0x5b, 0xff, 0xff])).into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    };
    let server = serve(Router::new().fallback(site)).await;
    let root = server.url();
    let mut config = loopback();
    config.fetch.parse_timeout_ms = 60_000;
    let (report, pages, _) = crawl(&root, config).await;
    for (path, error) in [
        ("formatting", "the document has more than 500000 nodes"),
        ("elements", "the document has more than 500000 nodes"),
        ("brotli", "its encoding is br, which was not asked for"),
    ] {
        let page = at(&pages, &root, path);
        assert_eq!((page.status, page.text.as_deref(), page.error.as_deref()), (200, None, Some(error)), "{path}");
    }
    assert_eq!((report.pages, report.errors), (4, 3));

    // Nothing is fetched from a site whose robots.txt is such.
    let busy = |uri: Uri| async move {
        assert_eq!(uri.path(), "/robots.txt");
        format!("User-agent: *\n{}", "Disallow: /*a*b*$\n".repeat(20_000))
    };
    let server = serve(Router::new().fallback(busy)).await;
    let (report, _, _) = crawl(&server.url(), loopback()).await;
    assert_eq!(report.failed_roots[0].error, "robots.txt could not be read: more than 1000 of its patterns hold a $");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_private_addresses_are_refused_after_dns() {
    let server = serve(Router::new().fallback(answer)).await;
    let port = server.address().port();
    for (host, error) in [
        ("127.0.0.1", "robots.txt could not be read: 127.0.0.1 is not a public address"),
        ("2130706433", "robots.txt could not be read: 127.0.0.1 is not a public address"),
        ("[::1]", "robots.txt could not be read: ::1 is not a public address"),
    ] {
        let (report, _, _) = crawl(&format!("http://{host}:{port}/"), CrawlConfig::default()).await;
        assert_eq!(report.failed_roots[0].error, error);
    }
    let (report, _, _) = crawl(&format!("http://localhost:{port}/"), CrawlConfig::default()).await;
    let error = &report.failed_roots[0].error;
    assert!(
        error.starts_with("robots.txt could not be read: localhost is at ") && error.contains("not a public address"),
        "{error}"
    );
    // With leave it is fetched.
    let mut config = CrawlConfig { depth_max: 0, ..loopback() };
    config.fetch.allow_private = true;
    let (report, _, _) = crawl(&format!("http://localhost:{port}/"), config).await;
    assert_eq!((report.pages, report.errors), (1, 0));
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crawl_stays_on_its_host_unless_told_otherwise() {
    let other = serve(Router::new().fallback(|| async { html("<title>Other</title><p>Other site.</p>") })).await;
    let target = other.url();
    let there = target.clone();
    let site = move |uri: Uri| {
        let there = there.clone();
        async move {
            match uri.path() {
                "/" => html(format!("<p>Links.</p><a href='{there}page'>o</a><a href='/out'>r</a>")),
                "/out" => redirect(&format!("{there}out")),
                _ => StatusCode::NOT_FOUND.into_response(),
            }
        }
    };
    let server = serve(Router::new().fallback(site)).await;
    let root = server.url();

    let (report, pages, _) = crawl(&root, loopback()).await;
    assert_eq!((report.pages, report.skipped), (2, [(Skip::OutOfScope, 1)].into()));
    let error = format!("redirects to {target}out, which is out of scope");
    assert_eq!(at(&pages, &root, "out").error.as_deref(), Some(error.as_str()));

    let listed = Scope::Hosts(vec![other.address().to_string()]);
    for scope in [listed, Scope::Any] {
        let (report, pages, _) = crawl(&root, CrawlConfig { scope, ..loopback() }).await;
        assert_eq!((report.pages, report.errors), (3, 0));
        assert_eq!(at(&pages, &root, "out").final_url, format!("{target}out"));
    }

    // A root may have moved: its new home is part of the crawl.
    let (report, pages, _) = crawl(&format!("{root}out"), loopback()).await;
    assert_eq!((report.pages, report.errors), (1, 0));
    assert_eq!(at(&pages, &root, "out").title.as_deref(), Some("Other"));
    drop((server, other));
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_and_page_limits_cut_where_the_order_says() {
    let site = |uri: Uri| async move {
        let path = uri.path().trim_start_matches('/');
        match path.strip_prefix("chain/").and_then(|number| number.parse::<u32>().ok()) {
            Some(number) => html(format!("<p>Link {number}.</p><a href='/chain/{}'>n</a>", number + 1)),
            None if path == "wide" => {
                // The first links answer last.
                let links: String = (0..50).map(|number| format!("<a href='/leaf/{number}'>l</a>")).collect();
                html(format!("<p>Wide.</p>{links}"))
            }
            None => {
                let number: u64 = path.strip_prefix("leaf/").and_then(|n| n.parse().ok()).unwrap_or(0);
                tokio::time::sleep(Duration::from_millis(50u64.saturating_sub(number))).await;
                html(format!("<p>Leaf {number}.</p><a href='/below/{number}'>b</a>"))
            }
        }
    };
    let server = serve(Router::new().fallback(site)).await;

    let root = format!("{}chain/0", server.url());
    let (report, pages, _) = crawl(&root, CrawlConfig { depth_max: 3, ..loopback() }).await;
    assert_eq!((report.pages, report.skipped), (4, [(Skip::Depth, 1)].into()));
    let depths: Vec<i32> = pages.values().map(|page| page.depth).collect();
    assert_eq!(depths, [0, 1, 2, 3]);
    let (report, _, _) = crawl(&root, CrawlConfig { depth_max: 0, ..loopback() }).await;
    assert_eq!(report.pages, 1);

    let root = format!("{}wide", server.url());
    let (report, pages, _) = crawl(&root, CrawlConfig { pages_max: 11, ..loopback() }).await;
    let mut expected: Vec<String> = (0..10).map(|number| format!("{}leaf/{number}", server.url())).collect();
    expected.push(root.clone());
    assert_eq!(pages.keys().cloned().collect::<Vec<_>>(), expected);
    assert_eq!((report.pages, report.skipped), (11, [(Skip::PageLimit, 50)].into()));

    let (report, pages, _) = crawl(&root, CrawlConfig { pages_max: 56, ..loopback() }).await;
    assert_eq!((report.pages, report.skipped), (56, [(Skip::PageLimit, 45)].into()));
    let below: Vec<&String> = pages.keys().filter(|url| url.contains("below")).collect();
    let first: Vec<String> = (0..5).map(|number| format!("{}below/{number}", server.url())).collect();
    assert_eq!(below, first.iter().collect::<Vec<_>>());

    let (report, _, _) = crawl(&root, CrawlConfig { frontier_max: 20, depth_max: 1, ..loopback() }).await;
    assert_eq!((report.pages, report.skipped.get(&Skip::FrontierFull)), (21, Some(&30)));
    drop(server);
}

#[tokio::test]
async fn roots_that_cannot_be_crawled_are_named() {
    for root in ["", "ftp://example.com/", "example.com", "http://"] {
        let error = Crawl::new([root], CrawlConfig::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{root:?} cannot be crawled: give a URL that begins with http:// or https://")
        );
    }
    assert!(matches!(Crawl::new(Vec::<String>::new(), CrawlConfig::default()), Err(CrawlError::NoRoots)));
    // Nobody listens there; the root is recorded all the same.
    let log = std::sync::Arc::new(MemoryLog::default());
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let report = Crawl::new([format!("http://{closed}/")], loopback()).unwrap().run(log.clone(), ()).await.unwrap();
    assert_eq!((report.pages, report.errors), (1, 1));
    assert!(report.failed_roots[0].error.contains("onnection refused"), "{}", report.failed_roots[0].error);
}
