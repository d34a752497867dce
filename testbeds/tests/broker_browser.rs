//! The broker's pages in a real browser: log in, make a tunnel, move it, make a key, remove it, with forms that are filled in and
//! sent as a person does it. Chromium is driven by its debugging pipe; where it is not installed, that is said.
//!
//! `DUET_SCREENSHOTS=DIR` keeps a picture of each page.

use data_encoding::BASE64;
use router_io::lab::{Host, Process};
use router_io::sandbox_test;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use testbeds::lab::Dut::Duet;
use testbeds::lab::{Bed, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const PATIENCE: Duration = Duration::from_secs(40);

/// A browser with one page.
struct Browser {
    _process: Process,
    input: ChildStdin,
    said: Receiver<Value>,
    number: u64,
    session: Option<String>,
    pictures: Option<PathBuf>,
}

impl Browser {
    /// None, said on standard error, where there is none.
    fn start(host: &Host, dir: &Path) -> Result<Option<Browser>> {
        let Some(program) = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
            .iter()
            .find(|p| Path::new(p).exists())
        else {
            eprintln!("SKIPPED: the broker's pages in a browser: chromium is not installed");
            return Ok(None);
        };
        // The pipe is descriptors 3 and 4: a shell moves them there.
        let mut command = Command::new("sh");
        let flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking \
                     --disable-component-update --disable-sync --window-size=1000,1400 --remote-debugging-pipe";
        command.args([
            "-c",
            &format!("exec {program} {flags} --user-data-dir=\"$0\" about:blank 3<&0 4>&1 >/dev/null 2>&1 </dev/null"),
        ]);
        command.arg(dir.join("browser")).env("HOME", dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = host.spawn(command)?;
        let (input, output) = process.stdin().zip(process.stdout()).ok_or("no pipes to the browser")?;
        let (tx, said) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(|m| m.ok()) {
                if let Ok(value) = serde_json::from_slice(&message) {
                    let _ = tx.send(value);
                }
            }
        });
        let pictures = std::env::var_os("DUET_SCREENSHOTS").map(PathBuf::from);
        let mut browser = Browser { _process: process, input, said, number: 0, session: None, pictures };
        let target = browser.ask("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attached =
            browser.ask("Target.attachToTarget", &json!({ "targetId": target["targetId"], "flatten": true }))?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        Ok(Some(browser))
    }

    fn ask(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.input.write_all(message.to_string().as_bytes())?;
        self.input.write_all(&[0])?;
        let until = Instant::now() + PATIENCE;
        loop {
            let mut answer = self.said.recv_timeout(until.saturating_duration_since(Instant::now()))?;
            if answer["id"] == self.number {
                return match answer.get("error") {
                    Some(e) => Err(format!("{method}: {e}").into()),
                    None => Ok(answer["result"].take()),
                };
            }
        }
    }

    /// The value of an expression in the page.
    fn value(&mut self, script: &str) -> Result<Value> {
        let mut said = self.ask("Runtime.evaluate", &json!({ "expression": script, "returnByValue": true }))?;
        match said.get("exceptionDetails") {
            Some(e) => Err(format!("{script}: {e}").into()),
            None => Ok(said["result"]["value"].take()),
        }
    }

    /// Waits for a page that has this in its text.
    fn wait(&mut self, text: &str) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            // Between two pages there is none to ask.
            let script = "document.readyState === 'complete' && document.body ? document.body.innerText : ''";
            let page = self.value(script).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            if page.contains(text) {
                return Ok(page);
            }
            if Instant::now() >= until {
                return Err(format!("no page with {text:?}: {page}").into());
            }
        }
    }

    /// Fills in fields by their ids and presses the button whose text this is.
    fn send(&mut self, fields: &[(&str, &str)], button: &str) -> Result {
        for (id, text) in fields {
            let script = format!("document.getElementById({}).value = {}", json!(id), json!(text));
            self.value(&script)?;
        }
        let script = format!(
            "[...document.querySelectorAll('button, a')].find(b => b.innerText.trim() === {}).click()",
            json!(button)
        );
        self.value(&script).map(|_| ())
    }

    fn picture(&mut self, name: &str) -> Result {
        let Some(dir) = self.pictures.clone() else { return Ok(()) };
        let shot = self.ask("Page.captureScreenshot", &json!({ "format": "png", "captureBeyondViewport": true }))?;
        let bytes = BASE64.decode(shot["data"].as_str().unwrap_or_default().as_bytes())?;
        Ok(std::fs::write(dir.join(format!("{name}.png")), bytes)?)
    }
}

sandbox_test! {
    fn a_person_makes_moves_and_removes_a_tunnel() {
        let mut bed = Bed::new(PROGRAM).unwrap();
        bed.net.hosts(&["c", "s"]).unwrap();
        bed.net.link(("c", "eth0"), ("s", "eth0")).unwrap();
        bed.ready().unwrap();
        bed.end("c", &["203.0.113.2/24", "203.0.113.3/24"], &[]).unwrap();
        bed.end("s", &["203.0.113.1/24"], &[]).unwrap();
        let broker = format!(
            "[broker]\nname = \"lab.example\"\nlisten = [\"203.0.113.1:8080\"]\ndatabase = \"{}\"\nendpoint = \"203.0.113.1\"\ndev = \"wan\"\n\
             links = \"2001:db8:f::/48\"\nprefixes = [\"2001:db8:4000::/36\"]\nsubnets = [\"2001:db8:e::/48\"]\n",
            bed.dir().join("broker.redb").display()
        );
        bed.router(Duet, &RouterConfig::new("s").port_of("rawip", "wan", &[], "").extra(&broker)).unwrap();
        let password = bed.duet("s").duet("broker account add alice").unwrap().trim().to_owned();
        let Some(mut b) = Browser::start(bed.host("c"), bed.dir()).unwrap() else { return };
        b.ask("Page.navigate", &json!({ "url": "http://203.0.113.1:8080/" })).unwrap();
        b.wait("Accounts are made by the operator").unwrap();
        b.picture("1-login").unwrap();
        b.send(&[("user", "alice"), ("password", "not that one")], "Log in").unwrap();
        b.wait("Unknown account or wrong password.").unwrap();
        b.picture("2-refused").unwrap();
        b.send(&[("user", "alice"), ("password", &password)], "Log in").unwrap();
        b.wait("You have no tunnels yet.").unwrap();
        b.picture("3-empty").unwrap();
        // The address that the request came from is filled in already.
        assert_eq!(b.value("document.getElementById('endpoint').value").unwrap(), "203.0.113.2");
        b.send(&[("name", "home")], "Make the tunnel").unwrap();
        let page = b.wait("The tunnel is made.").unwrap();
        for text in ["Update key of this tunnel", "2001:db8:4000::/48", "ip tunnel add tb10001 mode sit remote 203.0.113.1", "proto '6in4'", "gif0"] {
            assert!(page.contains(text), "{text}: {page}");
        }
        b.picture("4-made").unwrap();
        let tunnels = || bed.duet("s").json("-j broker tunnel show").unwrap();
        assert_eq!((&tunnels()[0]["endpoint"], &tunnels()[0]["name"]), (&"203.0.113.2".into(), &"home".into()));
        // Somebody else's address is no end of a tunnel.
        b.send(&[("endpoint", "198.51.100.66")], "Move").unwrap();
        b.wait("198.51.100.66 is not the address that this request comes from.").unwrap();
        b.picture("5-foreign").unwrap();
        b.send(&[], "Back").unwrap();
        b.wait("Your tunnels").unwrap();
        b.send(&[], "home").unwrap();
        b.wait("Commands for your end").unwrap();
        b.send(&[("endpoint", "203.0.113.2")], "Move").unwrap();
        b.wait("Your end was 203.0.113.2 already.").unwrap();
        b.send(&[], "Make a new update key").unwrap();
        b.wait("the old one does not work any more").unwrap();
        b.send(&[], "Back to the tunnel").unwrap();
        b.wait("Remove this tunnel").unwrap();
        b.send(&[], "Remove this tunnel").unwrap();
        b.wait("Remove home?").unwrap();
        b.picture("6-remove").unwrap();
        b.send(&[], "Remove home").unwrap();
        b.wait("You have no tunnels yet.").unwrap();
        assert_eq!(tunnels().as_array().unwrap().len(), 0);
        // Nothing that the pages do was blocked by their own policy, and no script is needed.
        assert_eq!(b.value("document.scripts.length").unwrap(), 0);
        assert_eq!(b.value("getComputedStyle(document.querySelector('h1, h2')).fontFamily.length > 0").unwrap(), true);
        let log = bed.duet("s").duet("broker audit").unwrap();
        for what in ["logged in", "tunnel 10001 \"home\" made", "update key of tunnel 10001 changed", "removed"] {
            assert!(log.contains(what), "{what}: {log}");
        }
        drop(b);
        bed.finish().unwrap();
    }
}
