#!/usr/bin/env python3
"""Opens pages of a dashboard in Chromium and says what is wrong with them.

    check.py BASE < TASK       JSON: {"pages": [{"path": "/…", "shows": ["text", …]}, …], "never": ["text", …],
                               "keyboard": {"list", "opens", "attempt", "next"}}; the last two may be left out
    check.py --available       exit 0 where there is a browser

Every page is opened with scripts, looked at in both themes, and opened without scripts. A link to the same host is opened
too, one of each form (ids left out), so that none leads nowhere. Findings go to stdout as a JSON list of
{"page", "how", "what"}; exit 0 where there are none, 1 where there are, 2 where the check itself failed.
"""

import json
import re
import sys
from collections import deque
from urllib.parse import urldefrag, urljoin, urlsplit

from playwright.sync_api import Error, TimeoutError

from browser import AXE, chromium, context, launch, same_host

# What one page may weigh on the wire, with all that it loads (bytes).
WEIGHT_MAX = 300 * 1024
# Pages of one form that links lead to, and pages in all.
PER_FORM = 1
PAGES_MAX = 120
SERIOUS = {"serious", "critical"}
SCRIPTS_OFF = "scripts off"
# Links of a drawing have an object in place of their address.
LINKS = "all => all.map(a => new URL(a.getAttribute('href'), location.href).href)"


class Check:
    def __init__(self, base, browser, never=()):
        self.base = base.rstrip("/")
        self.never = never
        self.browser = browser
        self.findings = []
        self.opened = {}
        # One page each, since a window costs a browser more than a page does.
        self.windows = {"light": context(browser).new_page(), SCRIPTS_OFF: context(browser, scripts=False).new_page()}
        self.path, self.weight = "", []
        for how, page in self.windows.items():
            self.watch(page, how, lambda: self.path)
            page.on("requestfinished", lambda r: self.weight.append(r))

    def found(self, page, how, what):
        finding = {"page": page, "how": how, "what": what}
        if finding not in self.findings:
            self.findings.append(finding)

    def watch(self, page, how, path):
        """Reports whatever the browser says from now on, as of the page that `path` gives."""
        tell = lambda what: self.found(path(), how, what)
        page.on("console", lambda m: m.type in ("error", "warning") and tell(f"console {m.type}: {m.text}"))
        page.on("pageerror", lambda error: tell(f"script error: {error}"))
        # What is left for another page before all of it came has not failed.
        aborted = lambda r: r.failure == "net::ERR_ABORTED"
        page.on("requestfailed", lambda r: aborted(r) or tell(f"failed request: {r.url} ({r.failure})"))
        page.on("request", lambda r: same_host(self.base, r.url) or tell(f"request to another host: {r.url}"))
        page.on("response", lambda r: r.status >= 400 and tell(f"status {r.status}: {r.url}"))
        page.on("dialog", lambda d: (tell(f"a dialog opened: {d.message}"), d.dismiss()))
        page.on("popup", lambda p: tell(f"a window opened: {p.url}"))

    def open(self, page, path):
        """Loads a page to the end; streams of events stay open and are not waited for."""
        response = page.goto(self.base + path, wait_until="load")
        page.wait_for_timeout(50)
        return response

    def page(self, path, shows, named):
        """A page with scripts, and one that was named without them, too; gives its links."""
        links = []
        for how in self.windows if named else ["light"]:
            self.visit(path, how, shows, links)
        return links

    def visit(self, path, how, shows, links):
        page = self.windows[how]
        self.path, self.weight = path, []
        try:
            page.emulate_media(color_scheme="light")
            response = self.open(page, path)
            if "text/html" not in response.headers.get("content-type", ""):
                return
            self.text(page, path, how, shows)
            if how != SCRIPTS_OFF:
                self.hostile(page, path, how)
                self.layout(page, path, how)
                self.accessible(page, path)
                bytes_in = sum(r.sizes()["responseBodySize"] for r in self.weight if r.response())
                if bytes_in > WEIGHT_MAX:
                    self.found(path, how, f"{bytes_in} bytes on the wire, at most {WEIGHT_MAX} are good")
                links.extend(page.eval_on_selector_all("a[href]", LINKS))
        except (Error, TimeoutError) as error:
            self.found(path, how, f"not opened: {str(error).splitlines()[0]}")

    def text(self, page, path, how, shows):
        title, heading = page.title(), page.locator("h1").count()
        if not title or heading != 1:
            self.found(path, how, f"title {title!r} and {heading} main headings, to be a title and one")
        shown = page.inner_text("body")
        for text in shows:
            if text not in shown:
                self.found(path, how, f"does not show {text!r}")
        source = page.content() if self.never else ""
        for text in self.never:
            if text in source:
                self.found(path, how, f"holds {text!r}, which is not to be shown")

    def hostile(self, page, path, how):
        """The tests' data sets `window.hostile` from every place where text could be taken for markup or script."""
        if page.evaluate("() => window.hostile !== undefined"):
            self.found(path, how, "a script in the data was run")
        inside = "script:not([src]), iframe, object, embed, base, meta[http-equiv=refresh]"
        handlers = "els => els.filter(e => e.getAttributeNames().some(n => n.startsWith('on'))).length"
        if page.locator(inside).count() or page.eval_on_selector_all("*", handlers):
            self.found(path, how, "inline scripts, frames or event handlers in the page")
        for link in page.eval_on_selector_all("a[href]", LINKS):
            if urlsplit(link).scheme not in ("http", "https") or not same_host(self.base, link):
                self.found(path, how, f"a live link out of the page: {link}")

    def accessible(self, page, path):
        """What axe finds; a theme changes colours, so in the other one all rules about these are looked at again."""
        page.evaluate(AXE.read_text())
        for theme, rules in (("light", {}), ("dark", {"runOnly": ["cat.color"]})):
            page.emulate_media(color_scheme=theme)
            options = json.dumps({"resultTypes": ["violations"], **rules})
            result = page.evaluate(f"() => axe.run(document, {options})")
            for violation in result["violations"]:
                if violation["impact"] in SERIOUS:
                    at = "; ".join(" ".join(node["target"][:1]) for node in violation["nodes"][:3])
                    self.found(path, theme, f"axe {violation['impact']}: {violation['id']}: {violation['help']} at {at}")

    def layout(self, page, path, how):
        wide = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wide > 1:
            self.found(path, how, f"{wide} pixels wider than the window")

    def all(self, pages):
        """The pages named, then what they link to, by form."""
        waiting, forms = deque(), {}
        for entry in pages:
            waiting.append((entry["path"], entry.get("shows", []), True))
        while waiting and len(self.opened) < PAGES_MAX:
            path, shows, named = waiting.popleft()
            if path in self.opened:
                continue
            links = self.page(path, shows, named)
            self.opened[path] = links
            for link in links:
                url = urldefrag(urljoin(self.base + path, link)).url
                if not same_host(self.base, url):
                    continue
                parts = urlsplit(url)
                target = parts.path + (f"?{parts.query}" if parts.query else "")
                known = forms.setdefault(form(parts), set())
                if target not in self.opened and target not in known and len(known) < PER_FORM and html(parts.path):
                    known.add(target)
                    waiting.append((target, [], False))

    def arrives(self, page, wanted, by, tell):
        """Whether keys lead to a page within the time that one has."""
        try:
            page.wait_for_url(lambda url: urlsplit(url).path == wanted, wait_until="load")
        except TimeoutError:
            tell(f"{by} leads to {urlsplit(page.url).path}, not {wanted}")

    def keyboard(self, entry):
        """`/` search, `j k` rows, `Enter` opens, `[ ]` attempts, `?` help, as `entry` says where each is to be had."""
        # Loaded in the dark, too.
        window = context(self.browser, "dark")
        page = window.new_page()
        how = "keyboard"
        self.watch(page, how, lambda: entry["list"])
        tell = lambda what: self.found(entry["list"], how, what)
        try:
            self.open(page, entry["list"])
            page.keyboard.press("/")
            if page.evaluate("() => document.activeElement.type") != "search":
                tell("/ does not go to the search")
            page.keyboard.press("Escape")
            page.evaluate("() => document.activeElement.blur()")
            page.keyboard.press("?")
            if not page.locator("dialog[open]").count():
                tell("? does not show the shortcuts")
            page.keyboard.press("Escape")
            if page.locator("dialog[open]").count():
                tell("Escape does not close the shortcuts")
            page.keyboard.press("j")
            page.keyboard.press("j")
            page.keyboard.press("k")
            page.keyboard.press("Enter")
            self.arrives(page, entry["opens"], "j j k Enter", tell)
            self.open(page, entry["attempt"])
            page.keyboard.press("]")
            self.arrives(page, entry["next"], "]", tell)
            page.keyboard.press("[")
            self.arrives(page, entry["attempt"], "[", tell)
            page.go_back()
            self.arrives(page, entry["next"], "Back", tell)
        except (Error, TimeoutError) as error:
            tell(f"not done: {str(error).splitlines()[0]}")
        finally:
            window.close()


def form(parts):
    """A path with ids left out: pages of one form are made by the same code."""
    segments = [":id" if re.search(r"\d|[0-9a-f-]{12,}|%", s) else s for s in parts.path.split("/")]
    return "/".join(segments)


def html(path):
    """Twins in other formats are for the router's tests: a browser would save them."""
    return not re.search(r"\.(json|csv|parquet|svg|md|ndjson)$", path)


def main():
    if sys.argv[1:] == ["--available"]:
        sys.exit(None if chromium() else "no Chromium on this machine: deploy/setup test installs it")
    task = json.load(sys.stdin)
    playwright, browser = launch()
    try:
        check = Check(sys.argv[1], browser, task.get("never", ()))
        check.all(task["pages"])
        if "keyboard" in task:
            check.keyboard(task["keyboard"])
    finally:
        browser.close()
        playwright.stop()
    print(json.dumps({"opened": list(check.opened), "findings": check.findings}, indent=1, ensure_ascii=False))
    sys.exit(1 if check.findings else 0)


if __name__ == "__main__":
    try:
        main()
    except (Error, KeyError, ValueError) as error:
        print(f"check.py: {error}", file=sys.stderr)
        sys.exit(2)
