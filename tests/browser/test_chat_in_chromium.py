"""The chat as people use it: a real Chromium, a server in a process of its own, wss throughout."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from chromium import TIMEOUT, Browser, missing_tools, trusting_home
from selenium.webdriver.common.keys import Keys

import securews
from examples.chat.users import Users
from securews.certificates.dev_certificates import ensure_certificates

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "test-artifacts"
PASSWORDS = {"alice": "correct horse", "bob": "battery staple"}

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(missing_tools()), reason=f"not installed: {missing_tools()}"),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Certificates, a home that trusts them, and the users of a chat."""
    directory = tmp_path_factory.mktemp("chromium")
    ensure_certificates(directory / "certs")
    trusting_home(directory / "home", directory / "certs" / "ca.pem")
    for name, password in PASSWORDS.items():
        Users(directory / "data" / "users.json").set_password(name, password)
    PICTURES.mkdir(exist_ok=True)
    return directory


class Chat:
    """`python -m examples.chat` in a process that can be killed and started again."""

    def __init__(self, directory):
        self._directory = directory
        self._port = 0
        self.users = Users(directory / "data" / "users.json")
        self.start()

    def start(self):
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "examples.chat", "serve"),
                *("--port", str(self._port), "--data", str(self._directory / "data")),
            ],
            cwd=ROOT,
            env=os.environ | {"SECUREWS_CERTS": str(self._directory / "certs")},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for line in self._process.stdout:
            if found := re.search(r"https://localhost:(\d+)/", line):
                self.url, self._port = found[0], int(found[1])
            if "stop it with" in line:
                return
        raise AssertionError("the chat has not started")

    def kill(self):
        """As by a power cut: nobody is told."""
        self._process.kill()
        self._process.wait(TIMEOUT)
        self._process.stdout.close()

    def close(self):
        if self._process.poll() is None:
            self.kill()


@pytest.fixture
def chat(directory):
    with contextlib.closing(Chat(directory)) as chat:
        yield chat


@pytest.fixture
def window(directory, tmp_path):
    """Opens windows; each is a browser of its own, with cookies of its own."""
    browsers = []

    def opened(width=1000, height=700, dark=False):
        profile = tmp_path / f"profile-{len(browsers)}"
        browser = Browser(directory / "home", profile, width=width, height=height, dark=dark)
        browsers.append(browser)
        return browser

    yield opened
    for browser in browsers:
        browser.driver.quit()


def log_in(browser, chat, name, password=None):
    browser.get(chat.url)
    browser.is_at("/login")
    browser.find("#name").send_keys(name)
    browser.find("#password").send_keys(password or PASSWORDS[name], Keys.ENTER)


def enter(browser, chat, name):
    """Log in, and wait until the chat is there."""
    log_in(browser, chat, name)
    browser.is_at("/")
    browser.connection_is("open")


def write(browser, text):
    browser.find("#text").send_keys(text)


def picture(browser, name):
    browser.driver.save_screenshot(str(PICTURES / f"chat-{name}.png"))


def stays_within(browser, chat):
    """No request has left the origin, the WebSocket's included."""
    host = urlsplit(chat.url).netloc
    origins = {f"https://{host}", f"wss://{host}"}
    asked = [url for url in browser.urls if not url.startswith(("data:", "chrome:", "about:"))]
    assert f"wss://{host}/chat" in asked
    assert not [
        url for url in asked if "{0.scheme}://{0.netloc}".format(urlsplit(url)) not in origins
    ]


def test_two_users_log_in_from_two_windows_and_talk(chat, window):
    alice, bob = window(), window(dark=True)
    enter(alice, chat, "alice")
    enter(bob, chat, "bob")
    for browser in (alice, bob):
        browser.wait(
            lambda browser=browser: browser.texts("#online .name") == ["alice", "bob"],
            "both are online",
        )
    write(alice, "Good morning, bob!" + Keys.ENTER)
    bob.shows(".message:not(.mine) .text", "Good morning, bob!")
    write(bob, "<img src=x onerror=alert(1)> & two" + Keys.SHIFT + Keys.ENTER + Keys.NULL + "lines")
    bob.find("#composer button").click()
    alice.shows(".message:not(.mine) .text", "<img src=x onerror=alert(1)> & two\nlines")
    alice.shows(".mine .text", "Good morning, bob!")
    assert alice.texts(".message:not(.mine) .name") == ["bob"]
    assert re.fullmatch(r"\d\d:\d\d([  ][AP]M)?", alice.texts(".message time")[0])
    assert bob.find("#text").get_attribute("value") == ""
    picture(alice, "two-light")
    picture(bob, "two-dark")
    for browser in (alice, bob):
        assert browser.console == []
        stays_within(browser, chat)


def test_who_comes_back_finds_what_was_said(chat, window):
    alice = window()
    enter(alice, chat, "alice")
    write(alice, "before" + Keys.ENTER)
    alice.wait(lambda: alice.texts(".message:not(.pending) .text") == ["before"], "it is heard")
    alice.driver.refresh()
    alice.shows(".mine .text", "before")
    alice.get(f"{chat.url}login")  # the session stands: no second log-in
    alice.is_at("/")
    assert alice.console == []


def test_a_wrong_password_is_told_on_the_login_page(chat, window):
    alice = window()
    log_in(alice, chat, "alice", "wrong wrong")
    alice.shows(".note", "That is not the right name and password.")
    alice.is_at("/login")
    assert alice.find("#name").get_attribute("value") == "alice"
    assert alice.find("#password").get_attribute("value") == ""
    picture(alice, "wrong-password")
    # The browser itself notes the status of a page that is not 2xx; the page adds nothing.
    (line,) = alice.console
    assert re.fullmatch(r"network: .*/login - Failed to load resource: .* status of 403 .*", line)
    alice.script("document.activeElement.value = arguments[0]", PASSWORDS["alice"])
    assert alice.script("return document.activeElement.id") == "password"
    alice.find("button").click()
    alice.is_at("/")
    alice.connection_is("open")


def test_too_many_wrong_passwords_are_told_with_the_time_to_wait(chat, window):
    mallory = window()
    for _ in range(5):
        log_in(mallory, chat, "alice", "wrong wrong")
        mallory.wait(lambda: mallory.texts(".note") != [""], "there is an answer")
    (note,) = mallory.texts(".note")
    assert re.fullmatch(r"Too many wrong passwords. Please try again in (2\d|30) seconds.", note)


def test_logging_out_closes_all_tabs_of_that_user_and_of_nobody_else(chat, window):
    here, elsewhere, bob = window(), window(), window()
    enter(bob, chat, "bob")
    enter(elsewhere, chat, "alice")
    enter(here, chat, "alice")
    first = here.driver.current_window_handle
    here.new_tab()
    here.get(chat.url)
    here.connection_is("open")
    here.find("#logout button").click()
    here.is_at("/login?out")
    here.shows(".note", "You are logged out.")
    here.driver.switch_to.window(first)
    for browser in (here, elsewhere):
        browser.is_at("/login?over")
        browser.shows(".note", "Your session is over. Please log in again.")
        assert browser.console == []
    bob.wait(lambda: bob.texts("#online .name") == ["bob"], "alice has left")
    assert bob.script("return document.body.dataset.connection") == "open"
    assert bob.console == []
    here.get(chat.url)
    here.is_at("/login")


def test_the_server_is_killed_while_text_is_typed_and_the_text_is_sent_without_a_reload(
    chat, window
):
    alice, bob = window(), window(width=360, height=640)
    for browser, name in ((alice, "alice"), (bob, "bob")):
        enter(browser, chat, name)
        browser.script("window.loadedOnce = true")
    write(alice, "half a tho")
    chat.kill()
    for browser in (alice, bob):
        browser.connection_is("lost")
        browser.shows(
            "#notice-text",
            "Connection lost. You can go on writing: it is sent when the connection is back.",
        )
    write(alice, "ught")
    assert alice.find("#text").get_attribute("value") == "half a thought"
    write(bob, "written meanwhile" + Keys.ENTER)
    bob.shows(".pending .waiting", "not sent yet")
    assert re.fullmatch(r"Trying (again in \d+ s|now)", bob.texts("#countdown")[0])
    assert bob.sideways == 0
    picture(alice, "lost-light")
    picture(bob, "lost-phone")
    chat.start()
    for browser in (alice, bob):
        browser.connection_is("open")
        assert not browser.find("#notice").is_displayed()
    alice.shows(".message:not(.mine) .text", "written meanwhile")
    bob.wait(lambda: not bob.texts(".pending"), "nothing waits any more")
    assert alice.find("#text").get_attribute("value") == "half a thought"
    assert alice.script("return document.activeElement.id") == "text"
    write(alice, Keys.ENTER)
    bob.shows(".message:not(.mine) .text", "half a thought")
    assert bob.texts(".mine .text") == ["written meanwhile"]
    for browser in (alice, bob):
        assert browser.script("return window.loadedOnce") is True
        # That a server cannot be reached the browser notes by itself; the page adds nothing.
        assert all("ERR_CONNECTION" in line for line in browser.console), browser.console
        stays_within(browser, chat)


def test_who_was_logged_out_while_the_server_was_away_is_asked_to_log_in(chat, window):
    alice = window()
    enter(alice, chat, "alice")
    chat.kill()
    alice.connection_is("lost")
    chat.users.end_sessions("alice")
    chat.start()
    alice.is_at("/login?over")
    alice.shows(".note", "Your session is over. Please log in again.")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_of_360_pixels_never_scrolls_sideways(chat, window, dark):
    phone = window(width=360, height=640, dark=dark)
    scheme = "dark" if dark else "light"
    phone.get(chat.url)
    phone.is_at("/login")
    assert phone.sideways == 0
    picture(phone, f"login-phone-{scheme}")
    enter(phone, chat, "alice")
    for text in ("Hello from the bus", "x" * 500, "https://example.org/" + "y" * 200, "done"):
        write(phone, text + Keys.ENTER)
        phone.shows(".mine:not(.pending) .text", text)
    assert phone.sideways == 0
    # The newest message and the place to write are in view.
    assert phone.script(
        "const box = document.querySelector('.message:last-child').getBoundingClientRect();"
        "const text = document.querySelector('#text').getBoundingClientRect();"
        "return box.bottom <= text.top && text.bottom <= innerHeight && text.width > 200"
    )
    picture(phone, f"phone-{scheme}")
    assert phone.console == []


def test_many_messages_written_at_once_arrive_in_order_at_the_servers_pace(chat, window):
    alice = window()
    enter(alice, chat, "alice")
    lines = [f"line {number}" for number in range(24)]
    write(alice, "".join(line + Keys.ENTER for line in lines))
    alice.wait(lambda: not alice.texts(".pending"), "all are heard")
    assert alice.texts(".mine .text") == lines
    assert alice.console == []


@pytest.mark.promise(34)
def test_a_page_of_another_port_cannot_use_the_session(chat, window, directory):
    alice = window()
    enter(alice, chat, "alice")
    pair = (directory / "certs" / "server.pem", directory / "certs" / "server-key.pem")
    other = securews.serve(0, tls=pair)

    @other.page("/")
    def page(request):
        return securews.Response(
            200, {"Content-Type": "text/html", "Content-Security-Policy": "default-src *"}, "evil"
        )

    with other:
        alice.get(other.url.replace("wss:", "https:"))
        outcome = alice.driver.execute_async_script(
            """
            const [url, done] = arguments;
            const socket = new WebSocket(url);
            socket.onopen = () => done("open");
            socket.onclose = (event) => done(event.code);
            """,
            chat.url.replace("https:", "wss:") + "chat",
        )
    assert outcome == 1006
    assert "Unexpected response code: 403" in "".join(alice.console)
