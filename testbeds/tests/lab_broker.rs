//! Two sites get tunnels from a broker of ours, with one command each; the broker's clients of other people.

use router_io::lab::Process;
use router_io::sandbox_test;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, Dut, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
/// How long a client may take to notice that its address is another one, and packets to find their way.
const PATIENCE: Duration = Duration::from_secs(30);

fn server_config(dir: &Path) -> RouterConfig {
    RouterConfig::new("s")
        .port("inside", &["2001:db8:5::1/64"])
        .port_of("rawip", "wan", &[], "")
        .extra(&format!(
            "[broker]\nname = \"lab.example\"\nlisten = [\"203.0.113.1:8080\"]\ntsp = [\"203.0.113.1:3653\"]\ndatabase = \"{}\"\n\
             endpoint = \"203.0.113.1\"\ndev = \"wan\"\nlinks = \"2001:db8:f::/48\"\nprefixes = [\"2001:db8:4000::/36\"]\n\
             subnets = [\"2001:db8:e::/48\"]\nanonymous = true\noverlap = \"2s\"\n",
            dir.join("broker.redb").display()
        ))
}

fn site_config(name: &str) -> RouterConfig {
    RouterConfig::new(name).port("lan", &[]).port_of("rawip", "wan", &[], "")
}

/// la - a - isp - s - srv, and lb - b - isp: the Internet in the middle has IPv4 only.
fn internet() -> Result<Bed> {
    let mut bed = Bed::new(PROGRAM)?;
    bed.net.hosts(&["la", "a", "isp", "s", "srv", "b", "lb"])?;
    bed.net.link(("la", "eth0"), ("a", "lan"))?;
    bed.net.link(("a", "eth0"), ("isp", "a"))?;
    bed.net.link(("lb", "eth0"), ("b", "lan"))?;
    bed.net.link(("b", "eth0"), ("isp", "b"))?;
    bed.net.link(("s", "eth0"), ("isp", "s"))?;
    bed.net.link(("s", "inside"), ("srv", "eth0"))?;
    bed.ready()?;
    bed.router(
        Dut::Kernel,
        &RouterConfig::new("isp")
            .port("a", &["198.51.100.1/25"])
            .port("b", &["198.51.100.129/25"])
            .port("s", &["203.0.113.254/24"]),
    )?;
    bed.host("isp").set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
    bed.end("a", &["198.51.100.2/25"], &["default via 198.51.100.1"])?;
    bed.end("b", &["198.51.100.130/25"], &["default via 198.51.100.129"])?;
    bed.end("s", &["203.0.113.1/24"], &["default via 203.0.113.254"])?;
    bed.end("srv", &["2001:db8:5::2/64"], &["default via 2001:db8:5::1"])?;
    let config = server_config(bed.dir());
    bed.router(Dut::Duet, &config)?;
    Ok(bed)
}

/// A new account; the file with its password.
fn account(bed: &Bed, name: &str) -> Result<PathBuf> {
    let password = bed.duet("s").duet(&format!("broker account add {name}"))?;
    let file = bed.dir().join(format!("{name}.key"));
    std::fs::write(&file, &password)?;
    Ok(file)
}

/// Gets a site its tunnel and its host an address; the host's address.
fn join(bed: &mut Bed, site: &str, host: &str, user: &str) -> Result<String> {
    let file = account(bed, user)?;
    bed.router(Dut::Duet, &site_config(site))?;
    let line = format!(
        "tunnel add up broker http://203.0.113.1:8080 user {user} key-file {} prefix 48 lan lan",
        file.display()
    );
    print!("{}", bed.duet(site).duet(&line)?);
    let joined = bed.duet(site).json("-j broker joined")?;
    let prefix = joined[0]["prefixes"][0].as_str().ok_or("no prefix")?;
    let net = prefix.trim_end_matches("/48");
    bed.end(host, &[&format!("{net}2/64")], &[&format!("default via {net}1")])?;
    Ok(format!("{net}2"))
}

/// Gives the host of a site another address, as its network would.
fn renumber(bed: &Bed, host: &str, old: &str, new: &str, gateway: &str) -> Result {
    bed.net.del_addr(host, "eth0", &format!("{old}/25"))?;
    bed.end(host, &[&format!("{new}/25")], &[&format!("default via {gateway}")])
}

fn has(program: &str) -> bool {
    let found = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|d| Path::new(d).join(program).exists());
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

sandbox_test! {
    /// Proves rfc3053-2.1-broker.
    fn two_sites_a_server_and_a_change_of_address() {
        let mut bed = internet().unwrap();
        let la = join(&mut bed, "a", "la", "alice").unwrap();
        let lb = join(&mut bed, "b", "lb", "bob").unwrap();
        let between = |bed: &Bed, limit| Pair::new(bed.host("la"), bed.host("lb"), &la, &lb).wait_reachable(limit);
        between(&bed, PATIENCE).unwrap();
        let pair = Pair::new(bed.host("la"), bed.host("lb"), &la, &lb);
        pair.every_size_after_learning(1480).unwrap();
        pair.tcp().unwrap();
        Pair::new(bed.host("la"), bed.host("srv"), &la, "2001:db8:5::2").tcp().unwrap();
        // Site a gets another address: its router notices, tells the broker, and all goes on with the same prefix.
        renumber(&bed, "a", "198.51.100.2", "198.51.100.77", "198.51.100.1").unwrap();
        between(&bed, PATIENCE).unwrap();
        let tunnels = bed.duet("s").json("-j broker tunnel show").unwrap();
        assert_eq!(tunnels[0]["endpoint"], "198.51.100.77", "{tunnels}");
        pair.tcp().unwrap();
        let joined = bed.duet("a").json("-j broker joined").unwrap();
        assert_eq!((&joined[0]["outer"][0], &joined[0]["problem"]), (&Value::from("198.51.100.77"), &Value::Null), "{joined}");
        // Killed without warning: everything is as it was when the server is back.
        let mut server = bed.take("s");
        server.process().kill().unwrap();
        drop(server);
        let config = server_config(bed.dir()).to_toml();
        bed.restart("s", &config).unwrap();
        between(&bed, PATIENCE).unwrap();
        assert_eq!(bed.duet("s").json("-j broker tunnel show").unwrap()[0]["prefixes"], tunnels[0]["prefixes"]);
        // What the broker gave ends here and there with one command.
        bed.duet("b").duet("broker leave up").unwrap();
        assert_eq!(bed.duet("s").json("-j broker tunnel show").unwrap().as_array().unwrap().len(), 1);
        let pools = bed.duet("s").json("-j broker pool show").unwrap();
        assert_eq!((&pools[0]["used"], &pools[1]["used"]), (&Value::from(1), &Value::from(1)), "{pools}");
        bed.finish().unwrap();
    }
}

/// Waits until the broker has this endpoint for the only tunnel.
fn wait_endpoint(bed: &Bed, wanted: &str, what: &str, process: &mut Process) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tunnels = bed.duet("s").json("-j broker tunnel show").unwrap();
        if tunnels[0]["endpoint"] == wanted {
            return;
        }
        if Instant::now() >= deadline {
            let ended = process.try_wait();
            panic!("{what} did not update: {tunnels} {ended:?}\n{}", bed.duet("s").log());
        }
        std::thread::yield_now();
    }
}

sandbox_test! {
    fn clients_of_other_people() {
        let bed = internet().unwrap();
        let password = std::fs::read_to_string(account(&bed, "joe").unwrap()).unwrap();
        let password = password.trim();
        let made = bed.duet("s").json("-j broker tunnel add joe home --prefix 64").unwrap();
        let id = made["tunnel"]["id"].as_u64().unwrap();
        let key = made["update_key"].as_str().unwrap();
        let file = |name: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt;
            let path = bed.dir().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        let run = |program: &str, args: &[String]| {
            let mut command = Command::new(program);
            command.args(args).env("HOME", bed.dir()).current_dir(bed.dir()).stdin(Stdio::null());
            command.stdout(std::fs::File::create(bed.dir().join("client.log")).unwrap());
            bed.host("a").spawn(command).unwrap()
        };
        if has("ddclient") {
            let config = file("ddclient.conf", &format!(
                "daemon=0\nsyslog=no\nssl=no\nuse=if, if=eth0\ncache={}\nprotocol=dyndns2\nserver=203.0.113.1:8080\nlogin=joe\npassword='{key}'\n{id}\n",
                bed.dir().join("ddclient.cache").display()
            ));
            let args = ["-daemon=0", "-noquiet", "-verbose", "-force", "-file"].map(str::to_owned);
            let mut client = run("ddclient", &[&args[..], &[config.display().to_string()]].concat());
            wait_endpoint(&bed, "198.51.100.2", "ddclient", &mut client);
            let deadline = Instant::now() + PATIENCE;
            while client.try_wait().unwrap().is_none() {
                assert!(Instant::now() < deadline, "ddclient does not end");
                std::thread::yield_now();
            }
            let log = std::fs::read_to_string(bed.dir().join("client.log")).unwrap();
            assert!(log.contains("good: IP address set to 198.51.100.2"), "{log}");
        }
        if has("inadyn") {
            bed.duet("s").duet(&format!("broker tunnel move {id} 198.51.100.99")).unwrap();
            let mut config = String::new();
            let _ = write!(config, "period = 300\nallow-ipv6 = false\niface = eth0\ncustom broker {{\n    username = joe\n    password = {password}\n    ssl = false\n    \
                ddns-server = \"203.0.113.1:8080\"\n    ddns-path = \"/nic/update?hostname=%h&myip=%i\"\n    hostname = \"{id}\"\n}}\n");
            let config = file("inadyn.conf", &config);
            let args = ["-n", "--once", "--force", "-l", "debug", "--cache-dir"].map(str::to_owned);
            let more = [bed.dir().display().to_string(), "-f".into(), config.display().to_string()];
            let mut client = run("inadyn", &[&args[..], &more[..]].concat());
            wait_endpoint(&bed, "198.51.100.2", "inadyn", &mut client);
        }
        if has("wget") {
            bed.duet("s").duet(&format!("broker tunnel move {id} 198.51.100.99")).unwrap();
            // As OpenWrt's 6in4 does it: the address left to the server, user and password as options.
            let args = ["-q", "-O", "-", "--user=joe"].map(str::to_owned);
            let more = [format!("--password={key}"), format!("http://203.0.113.1:8080/nic/update?hostname={id}")];
            let mut client = run("wget", &[&args[..], &more[..]].concat());
            wait_endpoint(&bed, "198.51.100.2", "wget", &mut client);
        }
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn slow_and_hostile_clients_disturb_nobody() {
        use std::io::{Read, Write};
        let bed = internet().unwrap();
        bed.duet("s").duet("broker account add joe").unwrap();
        // Connections that say nothing, in the number that one peer may have and beyond.
        let idle: Vec<_> = (0..40)
            .map(|_| bed.host("a").run(|| std::net::TcpStream::connect("203.0.113.1:8080")).unwrap())
            .collect();
        // Another peer is served at once, and wrong passwords do not hold it up.
        let front = || {
            bed.host("b").run(|| -> std::io::Result<String> {
                let mut s = std::net::TcpStream::connect("203.0.113.1:8080")?;
                s.set_read_timeout(Some(PATIENCE))?;
                s.write_all(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")?;
                let mut text = String::new();
                s.read_to_string(&mut text)?;
                Ok(text)
            })
        };
        let flood: Vec<_> = (0..8)
            .map(|_| {
                bed.host("b")
                    .thread("flood", || {
                        for _ in 0..5 {
                            let Ok(mut s) = std::net::TcpStream::connect("203.0.113.1:8080") else { continue };
                            let _ = s.write_all(b"GET /nic/update?hostname=1 HTTP/1.0\r\nUser-Agent: x\r\nAuthorization: Basic am9lOndyb25n\r\n\r\n");
                            let _ = s.read_to_end(&mut Vec::new());
                        }
                    })
                    .unwrap()
            })
            .collect();
        assert!(front().unwrap().contains("<label for=\"user\">"));
        flood.into_iter().for_each(|t| t.join().unwrap());
        drop(idle);
        let log = bed.duet("s").json("-j broker audit").unwrap();
        let refused = log.as_array().unwrap().iter().filter(|a| a["what"].as_str().unwrap().starts_with("refused")).count();
        assert!(refused >= 5, "{log}");
        bed.finish().unwrap();
    }
}
