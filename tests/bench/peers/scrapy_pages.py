"""A site's pages by scrapy, as its tutorial writes a spider: title, text and links of each page, as JSON lines.

    scrapy_pages.py URL CONNECTIONS OUT
"""

import sys
import urllib.parse

import scrapy
from scrapy.crawler import CrawlerProcess
from scrapy.http import HtmlResponse
from scrapy.linkextractors import LinkExtractor


class Pages(scrapy.Spider):
    name = "pages"
    links = LinkExtractor()

    def parse(self, response):
        if not isinstance(response, HtmlResponse):
            return
        links = [link.url for link in self.links.extract_links(response)]
        yield {
            "url": response.url,
            "status": response.status,
            "title": response.css("title::text").get(),
            "text": "".join(response.css("body ::text").getall()),
            "links": links,
        }
        yield from response.follow_all(links)


def main(url, connections, out):
    process = CrawlerProcess(
        {
            "CONCURRENT_REQUESTS": int(connections),
            "CONCURRENT_REQUESTS_PER_DOMAIN": int(connections),
            "DOWNLOAD_DELAY": 0,
            "ROBOTSTXT_OBEY": False,
            "LOG_LEVEL": "WARNING",
            "TELNETCONSOLE_ENABLED": False,
            "FEEDS": {out: {"format": "jsonlines"}},
        }
    )
    process.crawl(Pages, start_urls=[url], allowed_domains=[urllib.parse.urlsplit(url).hostname])
    process.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
