//! Headless Chromium, driven over W3C WebDriver by Debian's chromedriver.

use reqwest::Method;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// How long anything on a page may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// How often chromedriver is started at most.
const STARTS_MAX: u32 = 5;
/// The key of an element's id (WebDriver §12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Nothing but the page asked for: no first-run work, no updates, no name is ever looked up.
const FLAGS: [&str; 15] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--lang=en-US",
    "--window-size=1280,900",
];

/// One browser with one page and an empty profile. It and its driver end with this value.
pub struct Browser {
    driver: Child,
    /// The browser's process, while it runs.
    pid: Option<u64>,
    http: reqwest::Client,
    /// URL of the WebDriver session.
    session: String,
    folder: TempDir,
}

impl Browser {
    /// Starts chromedriver on a free port, and the browser.
    ///
    /// # Panics
    /// When either does not start.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("chromedriver.log");
        let (driver, port) = start_driver(&log).await;
        // reqwest wants a provider of TLS even where none is spoken.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        // From here on a panic ends the driver.
        let mut browser = Self { driver, pid: None, http, session: String::new(), folder };
        browser.session = format!("http://127.0.0.1:{port}/session");
        let mut flags: Vec<String> = FLAGS.map(str::to_owned).to_vec();
        flags.push(format!("--user-data-dir={}", log.with_file_name("profile").display()));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            "goog:chromeOptions": { "args": flags },
        } } });
        let made = browser.command(Method::POST, "", &wanted).await.expect("Chromium starts");
        browser.pid = made["capabilities"]["goog:processID"].as_u64();
        assert!(browser.pid.is_some(), "chromedriver tells the browser's process: {made}");
        browser.session += &format!("/{}", made["sessionId"].as_str().expect("a session"));
        // The page it begins with asks for many things of its own.
        browser.open("about:blank").await;
        browser.log("performance").await;
        browser
    }

    /// Ends it in order. Dropping ends it too.
    ///
    /// # Panics
    /// When the driver does not answer.
    pub async fn close(mut self) {
        self.command(Method::DELETE, "", &Value::Null).await.expect("the browser ends");
        self.pid = None;
    }

    /// Goes to a page and waits until it is loaded.
    ///
    /// # Panics
    /// When it cannot be loaded.
    pub async fn open(&self, url: &str) {
        self.command(Method::POST, "/url", &json!({ "url": url })).await.expect("the page loads");
    }

    /// The page's title.
    ///
    /// # Panics
    /// When the driver does not answer.
    pub async fn title(&self) -> String {
        let title = self.command(Method::GET, "/title", &Value::Null).await.expect("a title");
        title.as_str().unwrap_or_default().to_owned()
    }

    /// What the first element of this selector shows now; `None` when there is none, or none to be seen.
    ///
    /// # Panics
    /// When the driver does not answer.
    pub async fn text(&self, selector: &str) -> Option<String> {
        let script =
            "const e = document.querySelector(arguments[0]); return e && e.checkVisibility() ? e.innerText : null";
        self.script(script, selector).await.as_str().map(|text| text.replace('\u{a0}', " ").trim().to_owned())
    }

    /// Waits until `find` makes something of what an element shows.
    ///
    /// # Panics
    /// When it does not within 30 s; tells what the page shows.
    pub async fn wait<T>(&self, selector: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.text(selector).await;
            if let Some(found) = text.as_deref().and_then(&find) {
                return found;
            }
            if Instant::now() > deadline {
                let page = self.text("body").await.unwrap_or_default();
                panic!("{selector} shows {text:?}, which was not waited for, on the page\n{page}");
            }
            sleep(PAUSE).await;
        }
    }

    /// Waits for an element and gives what it shows.
    ///
    /// # Panics
    /// As [`Browser::wait`].
    pub async fn see(&self, selector: &str) -> String {
        self.wait(selector, |text| Some(text.to_owned())).await
    }

    /// Waits until an element shows these words somewhere.
    ///
    /// # Panics
    /// As [`Browser::wait`].
    pub async fn see_words(&self, selector: &str, words: &str) {
        self.wait(selector, |text| text.contains(words).then_some(())).await;
    }

    /// Waits until no element of this selector is to be seen.
    ///
    /// # Panics
    /// When one is there after 30 s.
    pub async fn gone(&self, selector: &str) {
        let deadline = Instant::now() + PATIENCE;
        while let Some(text) = self.text(selector).await {
            assert!(Instant::now() <= deadline, "{selector} is still there: {text}");
            sleep(PAUSE).await;
        }
    }

    /// Clicks an element as a person does: it must be in sight and not covered.
    ///
    /// # Panics
    /// When it cannot be clicked within 30 s.
    pub async fn click(&self, selector: &str) {
        self.act(selector, "click", &json!({})).await;
    }

    /// Empties a field and types into it.
    ///
    /// # Panics
    /// When it cannot be typed into within 30 s.
    pub async fn enter(&self, selector: &str, text: &str) {
        self.act(selector, "clear", &json!({})).await;
        self.act(selector, "value", &json!({ "text": text })).await;
    }

    /// Attempts an action again while the element is not there, covered, or just being replaced.
    async fn act(&self, selector: &str, action: &str, body: &Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let done = match self.element(selector).await {
                Ok(id) => self.command(Method::POST, &format!("/element/{id}/{action}"), body).await,
                Err(why) => Err(why),
            };
            let Err(why) = done else { return };
            assert!(Instant::now() <= deadline, "{action} {selector}: {why}");
            sleep(PAUSE).await;
        }
    }

    async fn element(&self, selector: &str) -> Result<String, String> {
        let found =
            self.command(Method::POST, "/element", &json!({ "using": "css selector", "value": selector })).await?;
        found[ELEMENT].as_str().map(str::to_owned).ok_or_else(|| found.to_string())
    }

    /// What a function body returns for this argument, `arguments[0]`.
    ///
    /// # Panics
    /// When it throws.
    pub async fn script(&self, script: &str, argument: &str) -> Value {
        let body = json!({ "script": script, "args": [argument] });
        self.command(Method::POST, "/execute/sync", &body).await.expect("the script runs")
    }

    /// All cookies of the page, those that scripts cannot see included (WebDriver §14).
    ///
    /// # Panics
    /// When the driver does not answer.
    pub async fn cookies(&self) -> Vec<Value> {
        let cookies = self.command(Method::GET, "/cookie", &Value::Null).await.expect("cookies");
        cookies.as_array().cloned().unwrap_or_default()
    }

    /// What the page has written to its console since this was asked last, and what the browser had to object to.
    ///
    /// # Panics
    /// When the driver does not answer.
    pub async fn console(&self) -> Vec<String> {
        let entry = |entry: &Value| format!("{}: {}", entry["level"], entry["message"]);
        self.log("browser").await.iter().map(entry).collect()
    }

    /// URLs of all requests and sockets of the page since this was asked last.
    ///
    /// # Panics
    /// When the driver does not answer.
    pub async fn requested(&self) -> Vec<String> {
        let url = |entry: &Value| {
            let event: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let parameters = &event["message"]["params"];
            match event["message"]["method"].as_str()? {
                "Network.requestWillBeSent" => Some(parameters["request"]["url"].as_str()?.to_owned()),
                "Network.webSocketCreated" => Some(parameters["url"].as_str()?.to_owned()),
                _ => None,
            }
        };
        self.log("performance").await.iter().filter_map(url).collect()
    }

    async fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.command(Method::POST, "/se/log", &json!({ "type": kind })).await.expect("a log");
        log.as_array().cloned().unwrap_or_default()
    }

    /// One WebDriver command; its `value`.
    async fn command(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let mut request = self.http.request(method, format!("{}{path}", self.session));
        if !body.is_null() {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| error.to_string())?;
        let is_done = response.status().is_success();
        let mut answer: Value = response.json().await.map_err(|error| error.to_string())?;
        let value = answer["value"].take();
        if is_done { Ok(value) } else { Err(format!("{}: {}", value["error"], value["message"])) }
    }
}

/// The browser outlives a driver that is killed, so it goes first.
impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        // The browser's own children take a moment to notice, and write until then.
        for _ in 0..100 {
            if fs::remove_dir_all(self.folder.path()).is_ok() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// chromedriver, and the port that it has chosen. It takes one that is free over IPv6 and ends when that is not free over IPv4,
/// so it is started again.
async fn start_driver(log: &Path) -> (Child, u16) {
    for _ in 0..STARTS_MAX {
        let output = fs::File::create(log).expect("a log");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stderr(output.try_clone().expect("a log"))
            .stdout(output)
            .spawn()
            .expect("chromedriver of Debian's package chromium-driver");
        if let Some(port) = port(&mut driver, log).await {
            return (driver, port);
        }
        let _ = driver.kill();
        let _ = driver.wait();
    }
    panic!("chromedriver does not start: {}", fs::read_to_string(log).unwrap_or_default());
}

/// The port that chromedriver has chosen, once it says so; `None` when it ends before, or says nothing.
async fn port(driver: &mut Child, log: &Path) -> Option<u16> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() <= deadline && matches!(driver.try_wait(), Ok(None)) {
        let text = fs::read_to_string(log).unwrap_or_default();
        let said =
            text.lines().find_map(|line| line.split_once("successfully on port ")?.1.strip_suffix('.')?.parse().ok());
        if said.is_some() {
            return said;
        }
        sleep(PAUSE).await;
    }
    None
}
