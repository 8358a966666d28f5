"""The part of the tour that uses the pages of self-service, as a browser without scripts does."""

import html
import re

import httpx2

from tour import dim, short


class Browser:
    """Keeps the cookie of a session, and sends the forms that the pages show."""

    def __init__(self, url):
        self._client = httpx2.Client(base_url=url, headers={"Origin": url}, follow_redirects=True)
        self.page = ""

    def open(self, path):
        return self._keep(self._client.get(path))

    def send(self, path, **fields):
        """Sends a form, with the hidden fields that the present page has for it."""
        for name in ("proof", "version", "key"):
            hidden = re.search(f'name="{name}" value="([^"]*)"', self.page)
            if hidden:
                fields.setdefault(name, html.unescape(hidden[1]))
        return self._keep(self._client.post(path, data=fields))

    def part(self, pattern):
        found = re.search(pattern, self.page)
        return html.unescape(found[1]) if found else ""

    def close(self):
        self._client.close()

    def _keep(self, answer):
        self.page = answer.text
        return answer.status_code


def tour_pages(tour, site, account):
    """Signs in, makes a token, uses it, and revokes it."""
    browser = Browser(site)
    tour.step(
        "The page where people make their tokens",
        f"{site}: a process of its own, which Envoy never asks. Its database login can act for "
        "nobody who has not signed in.",
    )
    email, password = account
    status = browser.open("/sign-in")
    print(f"   GET {site}/sign-in  {dim(str(status))}")
    wrong = browser.send("/sign-in", email=email, password="a wrong password")
    tour.check("a wrong password is refused", wrong == 401, wrong)
    browser.send("/sign-in", email=email, password=password)
    tour.check("signed in", "Your tokens" in browser.page, browser.part("<h1>(.*?)</h1>"))
    browser.open("/tokens/new")
    scope = {"what": "acme:models:llm_read", "entity": "*"}
    status = browser.send("/tokens/new", name="from the page", days="1", **scope)
    tour.check("a new token is shown", status == 201, status)
    token = browser.part('id="secret">([^<]+)<')
    print(f"   The page shows the token once: {short(token)}")
    tour.expect(tour.show("GET", "/proxy/acme/v1/models", token), 200)
    details = browser.part(r'<p><a href="(/tokens/[0-9a-f-]+)"')
    browser.open(details)
    tour.check("not shown again", token not in browser.page, "the token in its details")

    tour.step(
        "The page revokes it",
        "It answers when all replicas have obeyed, which takes them milliseconds.",
    )
    browser.open(f"{details}/revoke")
    browser.send(f"{details}/revoke")
    print(f"   {browser.part('role=.status.>([^<]*)<')}")
    tour.check("all replicas obeyed", "obeyed" in browser.page, browser.part("<h1>(.*?)</h1>"))
    tour.expect(tour.show("GET", "/proxy/acme/v1/models", token), 401, "token_revoked")
    browser.close()
