//! One spelling per URL.

use proptest::prelude::*;
use url::Url;
use webdancer_agent::fetch::url::{canonical, parse};

#[test]
fn spellings_of_one_url_become_one() {
    for (written, expected) in [
        ("HTTP://Example.COM", "http://example.com/"),
        ("http://example.com:80/a", "http://example.com/a"),
        ("https://example.com:443/a", "https://example.com/a"),
        ("http://example.com:8080/a", "http://example.com:8080/a"),
        ("http://example.com/a#part", "http://example.com/a"),
        ("http://example.com/a/./b/../c", "http://example.com/a/c"),
        ("http://example.com/../../a", "http://example.com/a"),
        ("http://example.com/a/%2e%2E/b", "http://example.com/b"),
        ("http://example.com/%7euser/%41%2d%5f", "http://example.com/~user/A-_"),
        ("http://example.com/%c3%a9%2f", "http://example.com/%C3%A9%2F"),
        ("http://example.com/é", "http://example.com/%C3%A9"),
        ("http://example.com/%e9", "http://example.com/%E9"),
        ("http://example.com/100%", "http://example.com/100%"),
        ("http://example.com/%zz%4", "http://example.com/%zz%4"),
        ("http://example.com/%25zz", "http://example.com/%25zz"),
        ("http://user:secret@example.com/", "http://example.com/"),
        ("http://example.com./a", "http://example.com/a"),
        ("http://example.com/a?", "http://example.com/a"),
        ("http://example.com/a?b=2&a=1", "http://example.com/a?b=2&a=1"),
        ("http://example.com/a?utm_source=x&b=2&UTM_Medium=y&gclid=1", "http://example.com/a?b=2"),
        ("http://example.com/a?utm_source=x", "http://example.com/a"),
        ("http://example.com/a?b=%7e&c=a b", "http://example.com/a?b=~&c=a%20b"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        (" http://example.com/a\n", "http://example.com/a"),
        ("http:\\\\example.com\\a", "http://example.com/a"),
    ] {
        assert_eq!(parse(written).as_ref().map(Url::as_str), Some(expected), "{written}");
    }
}

#[test]
fn what_is_never_fetched_has_none() {
    let long = format!("http://example.com/{}", "a".repeat(5000));
    for written in [
        "ftp://example.com/",
        "mailto:a@example.com",
        "javascript:void(0)",
        "data:text/html,a",
        "/a",
        "",
        "http://",
        &long,
    ] {
        assert_eq!(parse(written), None, "{written}");
    }
}

proptest! {
    #[test]
    fn the_canonical_form_is_canonical(
        host in "[a-zA-Z0-9.-]{1,12}",
        path in "[a-zA-Z0-9/%.~+é;: ]{0,24}",
        query in "[a-zA-Z0-9=&%+_?é]{0,24}",
    ) {
        if let Some(once) = parse(&format!("http://{host}/{path}?{query}")) {
            prop_assert_eq!(canonical(&once), Some(once.clone()));
            prop_assert_eq!(parse(once.as_str()), Some(once));
        }
    }

    #[test]
    fn any_text_is_survived(text in "\\PC{0,64}") {
        if let Some(once) = parse(&text) {
            prop_assert_eq!(parse(once.as_str()), Some(once));
        }
    }
}
