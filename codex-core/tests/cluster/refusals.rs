//! Access to a cluster with TLS and users, and a typed error for each way in which it is refused.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use codex_core::shared::{EngineFault, Etcd, SharedError, Tls};
use codex_core::{Error, Store};

use crate::common::{LONG, ONE, of_log, start, state};
use crate::members::{self, Cluster, Setup, base64, range};

const USER: &str = "app";
const SECRET: &str = "correct horse";

fn certificate(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/certificates");
    folder.join(format!("{name}.pem"))
}

/// The members answer with this certificate, and ask for one of the same authority.
fn with_tls(server: &str, members: usize) -> Setup {
    let (cert, key) = (certificate(server), certificate(&format!("{server}.key")));
    Setup { tls: Some(members::Tls { cert, key, client_ca: certificate("ca") }), members, ..ONE }
}

/// Three members with TLS and users. The user may use the keys under `app/`, and no others.
fn secured() -> Option<MutexGuard<'static, Option<Cluster>>> {
    static CLUSTER: Mutex<Option<Cluster>> = Mutex::new(None);
    let mut cluster = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    if cluster.is_none() {
        let new = start("secured", with_tls("server", 3))?;
        let ask = |path: &str, body: &str| {
            let answer = new.ask(0, path, body).unwrap();
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
        };
        let [from, to] = range(&format!("{USER}/"));
        let permission =
            format!(r#"{{"permType": "READWRITE", "key": "{from}", "range_end": "{to}"}}"#);
        ask("auth/role/add", r#"{"name": "app"}"#);
        ask("auth/role/grant", &format!(r#"{{"name": "app", "perm": {permission}}}"#));
        for (user, secret, role) in [("root", "root", "root"), (USER, SECRET, "app")] {
            ask("auth/user/add", &format!(r#"{{"name": "{user}", "password": "{secret}"}}"#));
            ask("auth/user/grant", &format!(r#"{{"user": "{user}", "role": "{role}"}}"#));
        }
        ask("auth/enable", "{}");
        *cluster = Some(new);
    }
    Some(cluster)
}

fn tls(client: &str) -> Tls {
    let key = certificate(&format!("{client}.key"));
    Tls::new().ca_file(certificate("ca")).client(certificate(client), key)
}

fn app(endpoints: Vec<String>) -> Etcd {
    Etcd::new(endpoints).prefix(USER).tls(tls("client")).user(USER, SECRET)
}

/// Opens a store, and returns the kind of the error and its words. It names the next step.
#[track_caller]
fn refused(log: Etcd, fault: EngineFault, words: &[&str]) {
    let options = Store::options().write_timeout(Duration::from_secs(3));
    let error: Error = options.shared(log).unwrap_err();
    let text = error.to_string();
    match of_log(error) {
        SharedError::Engine { fault: found, .. } => assert_eq!(found, fault, "{text}"),
        other => panic!("{other}"),
    }
    for part in words {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert!(!text.contains(SECRET), "{text}");
}

#[test]
fn a_node_with_a_certificate_and_a_user_goes_on_when_its_tokens_end() {
    let Some(mut guard) = secured() else { return };
    let cluster = guard.as_mut().unwrap();
    let open = |n: usize| {
        let mut endpoints = cluster.tls_endpoints();
        endpoints.rotate_left(n);
        Store::options().write_timeout(LONG).shared(app(endpoints)).unwrap()
    };
    let (store, other) = (open(0), open(1));
    store.set("first", &0).unwrap();
    other.set("second", &0).unwrap();
    for n in 0..3 {
        // Tokens are in the memory of a member, which knows none after this.
        cluster.kill(n);
        cluster.run(n).unwrap();
        cluster.wait_for_leader().unwrap();
        store.set(format!("store {n}"), &n).unwrap();
        other.set(format!("other {n}"), &n).unwrap();
    }
    assert_eq!(state(&store), state(&other));
    assert_eq!(store.len(), 8);
}

#[test]
fn a_wrong_address_is_refused_with_the_next_step() {
    let log = |endpoint: &str| Etcd::new([endpoint]).prefix(USER);
    for endpoint in ["", "127.0.0.1:2379", "https://", "ftp://127.0.0.1", "http://127.0.0.1/v3"] {
        refused(log(endpoint), EngineFault::Option, &["`https://10.0.0.1:2379`"]);
    }
    refused(log("http://10.0.0.1:2379"), EngineFault::Option, &["`plain_http(true)`"]);
    refused(log("https://user@127.0.0.1:1"), EngineFault::Option, &["`user`"]);
    refused(Etcd::new([""; 0]), EngineFault::Option, &["is empty"]);
    refused(log("http://127.0.0.1:2379").prefix("a/"), EngineFault::Option, &["prefix"]);
    let short = Duration::from_secs(4);
    refused(log("http://127.0.0.1:2379").lease(short), EngineFault::Option, &["lease"]);
    // Nothing listens below the ports that this system gives away.
    refused(log("http://127.0.0.1:9"), EngineFault::Unreachable, &["127.0.0.1:9"]);
}

#[test]
fn a_certificate_that_is_not_accepted_is_refused() {
    let Some(guard) = secured() else { return };
    let endpoints = guard.as_ref().unwrap().tls_endpoints();
    let with = |tls: Tls| app(endpoints.clone()).tls(tls);
    let (cert, key) = (certificate("client"), certificate("client.key"));
    let other = Tls::new().ca_file(certificate("other-ca")).client(cert, key);
    refused(with(other), EngineFault::Tls, &["UnknownIssuer"]);
    // The members ask for one of their authority.
    refused(with(Tls::new().ca_file(certificate("ca"))), EngineFault::Tls, &["BadCertificate"]);
    let missing = Tls::new().ca_file(certificate("nowhere"));
    refused(with(missing), EngineFault::Option, &["nowhere.pem"]);
    refused(with(tls("client-with-name")), EngineFault::CommonName, &["common name"]);
}

#[test]
fn a_member_with_a_certificate_that_has_expired_is_refused() {
    let Some(cluster) = start("expired", with_tls("expired", 1)) else { return };
    refused(app(cluster.tls_endpoints()), EngineFault::Tls, &["expired"]);
}

#[test]
fn a_user_without_the_permission_is_refused() {
    let Some(guard) = secured() else { return };
    let endpoints = guard.as_ref().unwrap().tls_endpoints();
    let with = || app(endpoints.clone());
    refused(with().prefix("other"), EngineFault::Denied, &["grant", "prefix"]);
    refused(with().user(USER, "wrong"), EngineFault::Password, &["password"]);
    refused(with().user("nobody", SECRET), EngineFault::Password, &["password"]);
    let without = Etcd::new(endpoints.clone()).prefix(USER).tls(tls("client"));
    refused(without, EngineFault::Password, &["`user`"]);
}

#[test]
fn a_prefix_with_other_keys_is_refused() {
    let Some(cluster) = start("keys", ONE) else { return };
    let key = base64(b"others/config");
    cluster.ask(0, "kv/put", &format!(r#"{{"key": "{key}", "value": "{key}"}}"#)).unwrap();
    let log = || Etcd::new(cluster.endpoints());
    refused(log().prefix("others"), EngineFault::OtherKeys, &["others"]);
    // Users are named to a cluster that has some.
    refused(log().prefix("mine").user(USER, SECRET), EngineFault::Password, &["no users"]);
}
