//! Requests of real clients, and of those who mean no good.

use super::{Peer, router};
use crate::broker::model::Mode;
use crate::broker::service::Origin;
use crate::broker::testing::{Bench, recording, run};
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use std::net::IpAddr;
use tower::ServiceExt;

const LOCAL: Origin = Origin { from: None, via: "control" };
/// `joe:secret`.
const BASIC: (&str, &str) = ("Authorization", "Basic am9lOnNlY3JldA==");
const AGENT: (&str, &str) = ("User-Agent", "ddclient/3.10.0");

/// What came back: code, body, headers.
struct Reply(StatusCode, String, axum::http::HeaderMap);

async fn send(bench: &Bench, from: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (n, v) in headers {
        request = request.header(*n, *v);
    }
    let mut request = request.body(Body::from(body.to_owned())).unwrap();
    let from: IpAddr = from.parse().unwrap();
    request.extensions_mut().insert(Peer(from));
    let reply = router(bench.web.clone()).oneshot(request).await.unwrap();
    let (parts, body) = reply.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    Reply(parts.status, String::from_utf8(body.to_vec()).unwrap(), parts.headers)
}

async fn get(bench: &Bench, path: &str, headers: &[(&str, &str)]) -> Reply {
    send(bench, "192.0.2.2", "GET", path, headers, "").await
}

/// Joe's tunnel without an endpoint; its number.
fn tunnel(bench: &Bench) -> u32 {
    let s = &bench.web.service;
    let joe = s.store.account("joe").unwrap().unwrap();
    s.create(LOCAL, Some(&joe), "home", Mode::SixInFour, None, &[48]).unwrap().0.id
}

#[test]
fn updates_as_clients_send_them() {
    run(async {
        let b = Bench::new();
        let id = tunnel(&b);
        assert!(b.tunnels().is_empty());
        let update = |rest: &str| format!("/nic/update?system=dyndns&hostname={id}{rest}");
        let r = get(&b, &update("&myip=192.0.2.2"), &[BASIC, AGENT]).await;
        assert_eq!((r.0, r.1.as_str()), (StatusCode::OK, "good 192.0.2.2\n"));
        assert_eq!(b.tunnels(), [(format!("tb{id}"), "192.0.2.2".into())]);
        assert_eq!(b.route("2001:db8:7000::/48"), Some(format!("tb{id}")));
        assert_eq!(b.allowed(&format!("tb{id}")), ["2001:db8:7::/64", "2001:db8:7000::/48"]);
        let again = get(&b, &update(""), &[BASIC, AGENT]).await;
        assert_eq!(again.1, "nochg 192.0.2.2\n");
        // Everything in the query, as some write it.
        let query = format!("/nic/update?username=joe&password=secret&hostname={id}&myip=192.0.2.3");
        let r = send(&b, "192.0.2.3", "GET", &query, &[AGENT], "").await;
        assert_eq!(r.1, "good 192.0.2.3\n");
        // Make before break: both ends are heard, the routes lead to the new one.
        assert_eq!(b.tunnels().len(), 2);
        assert_eq!(b.route("2001:db8:7000::/48"), Some(format!("tb{id}b")));
        b.web.service.plumb.tidy(std::time::Instant::now() + std::time::Duration::from_secs(11));
        assert_eq!(b.tunnels(), [(format!("tb{id}b"), "192.0.2.3".into())]);
        // Behind a NAT: the address that only its own network knows is not meant.
        let nat = send(&b, "192.0.2.4", "GET", &update("&myip=10.0.0.5"), &[BASIC, AGENT], "").await;
        assert_eq!(nat.1, "good 192.0.2.4\n");
        // By name, too; several at once, one line each.
        let r = send(&b, "192.0.2.4", "GET", "/nic/update?hostname=home,nothing", &[BASIC, AGENT], "").await;
        assert_eq!(r.1, "nochg 192.0.2.4\nnohost\n");
    });
}

/// Proves rfc3053-5-security.
#[test]
fn words_that_clients_know() {
    run(async {
        let b = Bench::new();
        let id = tunnel(&b);
        let many = vec!["1"; 21].join(",");
        let wrong = ("Authorization", "Basic am9lOndyb25n");
        let table = [
            (format!("hostname={id}"), vec![AGENT], StatusCode::UNAUTHORIZED, "badauth\n"),
            (format!("hostname={id}"), vec![AGENT, wrong], StatusCode::UNAUTHORIZED, "badauth\n"),
            (
                format!("hostname={id}"),
                vec![AGENT, ("Authorization", "Bearer x")],
                StatusCode::UNAUTHORIZED,
                "badauth\n",
            ),
            (format!("hostname={id}"), vec![BASIC], StatusCode::OK, "badagent\n"),
            ("hostname=99999".into(), vec![AGENT, BASIC], StatusCode::OK, "nohost\n"),
            ("hostname=".into(), vec![AGENT, BASIC], StatusCode::OK, "notfqdn\n"),
            ("".into(), vec![AGENT, BASIC], StatusCode::OK, "notfqdn\n"),
            (format!("hostname={many}"), vec![AGENT, BASIC], StatusCode::OK, "numhost\n"),
            // Somebody else's address: the tunnel is no weapon.
            (format!("hostname={id}&myip=198.51.100.9"), vec![AGENT, BASIC], StatusCode::OK, "abuse\n"),
            (format!("hostname={id}&myip=2001:db8::1"), vec![AGENT, BASIC], StatusCode::OK, "abuse\n"),
            (format!("hostname={id}&myip=nonsense"), vec![AGENT, BASIC], StatusCode::OK, "dnserr\n"),
        ];
        for (query, headers, code, text) in table {
            let r = get(&b, &format!("/nic/update?{query}"), &headers).await;
            assert_eq!((r.0, r.1.as_str()), (code, text), "{query} {headers:?}");
            assert_eq!(r.2.contains_key(header::WWW_AUTHENTICATE), code == StatusCode::UNAUTHORIZED, "{query}");
        }
        // The server's own end, and another tunnel's.
        let own = send(&b, "192.0.2.1", "GET", &format!("/nic/update?hostname={id}"), &[AGENT, BASIC], "").await;
        assert_eq!(own.1, "dnserr\n");
        assert_eq!(get(&b, &format!("/nic/update?hostname={id}"), &[AGENT, BASIC]).await.1, "good 192.0.2.2\n");
        let other = tunnel_named(&b, "office");
        assert_eq!(get(&b, &format!("/nic/update?hostname={other}"), &[AGENT, BASIC]).await.1, "dnserr\n");
    });
}

fn tunnel_named(b: &Bench, name: &str) -> u32 {
    let s = &b.web.service;
    let joe = s.store.account("joe").unwrap().unwrap();
    s.create(LOCAL, Some(&joe), name, Mode::SixInFour, None, &[]).unwrap().0.id
}

#[test]
fn whoever_changes_too_often_is_told_so() {
    run(async {
        let b = Bench::new();
        let id = tunnel(&b);
        let mut abuse = 0;
        for i in 0..20u8 {
            let from = format!("192.0.2.{}", 10 + i);
            let r = send(&b, &from, "GET", &format!("/nic/update?hostname={id}"), &[BASIC, AGENT], "").await;
            abuse += usize::from(r.1 == "abuse\n");
        }
        assert_eq!(abuse, 8, "twelve changes at once are allowed");
    });
}

#[test]
fn update_keys_open_one_tunnel() {
    run(async {
        let b = Bench::new();
        let s = &b.web.service;
        let (a, c) = (tunnel(&b), tunnel_named(&b, "office"));
        let key = s.new_key(LOCAL, a).unwrap();
        let auth = data_encoding::BASE64.encode(format!("joe:{key}").as_bytes());
        let auth = format!("Basic {auth}");
        let with = |id: u32| format!("/nic/update?hostname={id}");
        assert_eq!(get(&b, &with(a), &[AGENT, ("Authorization", &auth)]).await.1, "good 192.0.2.2\n");
        assert_eq!(get(&b, &with(c), &[AGENT, ("Authorization", &auth)]).await.1, "badauth\n");
        let both = format!("/nic/update?hostname={a},{c}");
        assert_eq!(get(&b, &both, &[AGENT, ("Authorization", &auth)]).await.1, "badauth\n");
        assert_eq!(get(&b, "/api/v1/tunnels", &[("Authorization", &auth)]).await.0, StatusCode::UNAUTHORIZED);
        s.new_key(LOCAL, a).unwrap();
        assert_eq!(get(&b, &with(a), &[AGENT, ("Authorization", &auth)]).await.1, "badauth\n");
    });
}

#[test]
fn the_older_call_and_the_documents() {
    run(async {
        let b = Bench::new();
        let id = tunnel(&b);
        let md5 = "5ebe2294ecd0e0f08eab7690d2a6ee69";
        let path = format!("/ipv4_end.php?ip=192.0.2.2&apikey=joe&pass={md5}&tid={id}");
        let agent = ("User-Agent", "inadyn/2.10.0 https://github.com/troglobit/inadyn/issues");
        let r = get(&b, &path, &[agent]).await;
        assert_eq!((r.0, r.1.as_str()), (StatusCode::OK, "+OK: Tunnel endpoint updated to: 192.0.2.2\n"));
        // The MD5 is no password anywhere else, and the password no MD5.
        assert!(get(&b, &path.replace(md5, "secret"), &[agent]).await.1.starts_with("-ERROR"));
        let plain = data_encoding::BASE64.encode(format!("joe:{md5}").as_bytes());
        let plain = format!("Basic {plain}");
        assert_eq!(get(&b, "/nic/update?hostname=home", &[AGENT, ("Authorization", &plain)]).await.1, "badauth\n");
        let ip = get(&b, "/", &[("Host", "checkip.dns.he.net"), AGENT]).await;
        assert_eq!(ip.1, "<html><body>Your IP address is : 192.0.2.2</body></html>\n");
        let info = get(&b, &format!("/tunnelInfo.php?tid={id}"), &[BASIC]).await;
        for line in [
            format!(" <tunnel id=\"{id}\">"),
            "  <serverv4>192.0.2.1</serverv4>".into(),
            "  <clientv4>192.0.2.2</clientv4>".into(),
            "  <serverv6>2001:db8:7::1</serverv6>".into(),
            "  <clientv6>2001:db8:7::2</clientv6>".into(),
            "  <routed64></routed64>".into(),
            "  <routed48>2001:db8:7000::/48</routed48>".into(),
            "  <rdns1>2001:db8:7::53</rdns1>".into(),
        ] {
            assert!(info.1.lines().any(|l| l == line), "{line} in\n{}", info.1);
        }
        assert_eq!(get(&b, "/tunnelInfo.php?tid=1", &[BASIC]).await.0, StatusCode::NOT_FOUND);
    });
}

#[test]
fn recorded_requests() {
    let text = String::from_utf8(recording("broker-update/requests.txt")).unwrap();
    run(async {
        let b = Bench::new();
        let id = tunnel(&b);
        let mut played = 0;
        for block in text.split("C> GET ").skip(1) {
            let lines: Vec<&str> = block.split("\\r\\n").map(|l| l.trim_start_matches("\nC> ")).collect();
            let path = lines[0].split(' ').next().unwrap().replace("12345", &id.to_string());
            let headers: Vec<(&str, &str)> =
                lines[1..].iter().take_while(|l| !l.is_empty()).filter_map(|l| l.split_once(": ")).collect();
            let r = get(&b, &path, &headers).await;
            let asked = headers.iter().any(|h| h.0 == "Authorization") || path.contains("pass");
            match path.split('?').next().unwrap() {
                "/" => assert!(r.1.contains("Your IP address is : 192.0.2.2")),
                _ if !asked => assert_eq!(r.0, StatusCode::UNAUTHORIZED),
                "/nic/update" => assert!(["good 192.0.2.2\n", "nochg 192.0.2.2\n"].contains(&r.1.as_str()), "{}", r.1),
                _ => assert!(r.0 == StatusCode::OK && r.1.starts_with("+OK"), "{}", r.1),
            }
            played += 1;
        }
        assert!(played >= 8, "{played}");
    });
}

#[test]
fn wrong_passwords_lock_out_and_are_noted() {
    run(async {
        let b = Bench::new();
        let id = tunnel(&b);
        let path = format!("/nic/update?hostname={id}");
        let wrong = ("Authorization", "Basic am9lOndyb25n");
        for _ in 0..5 {
            assert_eq!(get(&b, &path, &[AGENT, wrong]).await.1, "badauth\n");
        }
        // From there not even the right one, from elsewhere yes.
        assert_eq!(get(&b, &path, &[AGENT, BASIC]).await.1, "abuse\n");
        assert_eq!(send(&b, "198.51.100.1", "GET", &path, &[AGENT, BASIC], "").await.1, "good 198.51.100.1\n");
        let log = b.web.service.store.audits(20).unwrap();
        let last: Vec<&str> = log.iter().map(|a| a.what.as_str()).collect();
        assert!(last.contains(&"refused: wrong password; locked out for 30 s"), "{last:?}");
        assert!(last.last().unwrap().contains("moved from nowhere to 198.51.100.1"), "{last:?}");
        assert!(!format!("{log:?}").contains("wrong\""), "no password in the log");
    });
}

#[test]
fn one_peer_does_not_take_all() {
    run(async {
        let b = Bench::new();
        let mut refused = 0;
        for _ in 0..100 {
            refused += usize::from(get(&b, "/", &[]).await.0 == StatusCode::TOO_MANY_REQUESTS);
        }
        assert!((20..=40).contains(&refused), "{refused}");
        assert_eq!(send(&b, "198.51.100.1", "GET", "/", &[], "").await.0, StatusCode::OK);
    });
}

#[test]
fn the_api() {
    run(async {
        let b = Bench::new();
        let put = |body: Value| {
            let b = &b;
            async move {
                send(
                    b,
                    "192.0.2.2",
                    "PUT",
                    "/api/v1/tunnels/site",
                    &[BASIC, ("Content-Type", "application/json")],
                    &body.to_string(),
                )
                .await
            }
        };
        let r = put(json!({"prefix": 48})).await;
        assert_eq!(r.0, StatusCode::OK, "{}", r.1);
        let made: Value = serde_json::from_str(&r.1).unwrap();
        assert_eq!(made["tunnel"]["prefixes"], json!(["2001:db8:7000::/48"]));
        assert_eq!(
            (&made["tunnel"]["endpoint"], &made["tunnel"]["server"]),
            (&json!("192.0.2.2"), &json!("192.0.2.1"))
        );
        assert_eq!((&made["moved"], &made["seen_from"]), (&json!(true), &json!("192.0.2.2")));
        // Said again, nothing changes.
        let same: Value = serde_json::from_str(&put(json!({"prefix": 48})).await.1).unwrap();
        assert_eq!((&same["tunnel"]["id"], &same["moved"]), (&made["tunnel"]["id"], &json!(false)));
        assert!(same.get("update_key").is_none());
        for (body, code) in [
            (json!({"mode": "warp"}), StatusCode::BAD_REQUEST),
            (json!({"surprise": 1}), StatusCode::BAD_REQUEST),
            (json!("x"), StatusCode::BAD_REQUEST),
            (json!({"endpoint": "198.51.100.7"}), StatusCode::FORBIDDEN),
        ] {
            assert_eq!(put(body.clone()).await.0, code, "{body}");
        }
        let list: Value = serde_json::from_str(&get(&b, "/api/v1/tunnels", &[BASIC]).await.1).unwrap();
        assert_eq!(list.as_array().unwrap().len(), 1);
        let commands = get(&b, "/api/v1/tunnels/site/commands", &[BASIC, ("Host", "b.example")]).await;
        let commands: Value = serde_json::from_str(&commands.1).unwrap();
        let linux = commands.as_array().unwrap().iter().find(|c| c["system"] == "Linux").unwrap();
        assert!(
            linux["text"].as_str().unwrap().contains("mode sit remote 192.0.2.1 local 192.0.2.2 ttl 64"),
            "{linux}"
        );
        let gone = send(&b, "192.0.2.2", "DELETE", "/api/v1/tunnels/site", &[BASIC], "").await;
        assert_eq!(gone.0, StatusCode::NO_CONTENT);
        assert!(b.tunnels().is_empty());
        assert_eq!(get(&b, "/api/v1/tunnels/site", &[BASIC]).await.0, StatusCode::NOT_FOUND);
        let long = "x".repeat(20_000);
        let r =
            send(&b, "192.0.2.2", "PUT", "/api/v1/tunnels/site", &[BASIC, ("Content-Type", "application/json")], &long)
                .await;
        assert_eq!(r.0, StatusCode::BAD_REQUEST, "a body has a limit");
    });
}

/// The cookie of a reply.
fn cookie(r: &Reply) -> String {
    r.2[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned()
}

fn token(page: &str) -> String {
    page.split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

#[test]
fn the_pages() {
    run(async {
        let b = Bench::new();
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        let front = get(&b, "/", &[]).await;
        assert!(front.1.contains("<label for=\"user\">") && !front.1.contains("<script"), "{}", front.1);
        let policy = front.2[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        let post = async |path: &str, cookie: &str, body: &str, more: (&str, &str)| {
            send(&b, "192.0.2.2", "POST", path, &[form, ("Cookie", cookie), ("Host", "b.example"), more], body).await
        };
        let ours = ("Origin", "http://b.example");
        assert_eq!(post("/login", "", "user=joe&password=wrong", ours).await.0, StatusCode::FORBIDDEN);
        let foreign = post("/login", "", "user=joe&password=secret", ("Origin", "http://evil.example")).await;
        assert_eq!(foreign.0, StatusCode::FORBIDDEN);
        let r = post("/login", "", "user=joe&password=secret", ours).await;
        assert_eq!(r.0, StatusCode::SEE_OTHER);
        let set = r.2[header::SET_COOKIE].to_str().unwrap();
        assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
        let c = cookie(&r);
        let home = get(&b, "/", &[("Cookie", &c)]).await;
        let t = token(&home.1);
        // Without the token of this session nothing is done.
        let fields = "name=site&mode=6in4&endpoint=192.0.2.2&prefix=48";
        assert_eq!(post("/tunnels", &c, fields, ours).await.0, StatusCode::FORBIDDEN);
        let stale = post("/tunnels", &c, &format!("{fields}&token={}", "0".repeat(40)), ours).await;
        assert_eq!(stale.0, StatusCode::FORBIDDEN);
        assert!(b.tunnels().is_empty());
        let made = post("/tunnels", &c, &format!("{fields}&token={t}"), ours).await;
        assert_eq!(made.0, StatusCode::OK, "{}", made.1);
        assert!(made.1.contains("2001:db8:7000::/48") && made.1.contains("shown this once"));
        assert_eq!(b.tunnels().len(), 1);
        let bad =
            post("/tunnels", &c, &format!("name=%3Cscript%3E&mode=6in4&endpoint=&prefix=0&token={t}"), ours).await;
        assert!(bad.0 == StatusCode::BAD_REQUEST && !bad.1.contains("<script>"), "{}", bad.1);
        let id = b.web.service.store.tunnels().unwrap()[0].id;
        let page = get(&b, &format!("/tunnels/{id}"), &[("Cookie", &c), ("Host", "b.example\"><script>")]).await;
        assert!(page.0 == StatusCode::OK && !page.1.contains("<script>"), "{}", page.1);
        for system in ["Linux", "OpenWrt", "FreeBSD", "Duet"] {
            assert!(page.1.contains(&format!("<h3>{system}</h3>")), "{system}");
        }
        // Somebody else's session sees nothing of it.
        let s = &b.web.service;
        s.add_account(LOCAL, "ann", Some("long enough".into()), None).unwrap();
        let ann = cookie(&post("/login", "", "user=ann&password=long+enough", ours).await);
        assert_eq!(get(&b, &format!("/tunnels/{id}"), &[("Cookie", &ann)]).await.0, StatusCode::NOT_FOUND);
        let gone = post(&format!("/tunnels/{id}/delete"), &c, &format!("token={t}"), ours).await;
        assert_eq!(gone.0, StatusCode::SEE_OTHER);
        assert!(b.tunnels().is_empty());
        assert_eq!(post("/logout", &c, &format!("token={t}"), ours).await.0, StatusCode::SEE_OTHER);
        assert!(get(&b, "/", &[("Cookie", &c)]).await.1.contains("Log in"));
        assert_eq!(get(&b, "/nowhere", &[]).await.0, StatusCode::NOT_FOUND);
    });
}
