//! A cluster of etcd on this machine, whose members can be killed and stopped, and whose links can
//! be cut. `cargo xtask cluster` and the tests in `codex-core/tests/cluster` use it; so it names
//! nothing of either.
#![allow(
    dead_code,
    unused_imports,
    clippy::indexing_slicing,
    reason = "a harness of tests, of which each of the two programs uses a part"
)]

mod ask;
mod process;
mod proxy;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use ask::{Answer, base64, range, text_of};
pub(crate) use process::Kept;
pub(crate) use proxy::{Flow, Links, Proxy};

/// How the members of a cluster run.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// The number of members.
    pub(crate) members: usize,
    /// The maximum size of the database of a member, in bytes.
    pub(crate) quota: Option<u64>,
    /// A second address of each member, with TLS.
    pub(crate) tls: Option<Tls>,
}

/// The certificates with which the members answer.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// The authority of the certificates that clients must have.
    pub(crate) client_ca: PathBuf,
}

/// A cluster that runs until it is dropped, or until this process ends, for whatever reason.
#[derive(Debug)]
pub(crate) struct Cluster {
    program: PathBuf,
    folder: PathBuf,
    setup: Setup,
    links: Arc<Links>,
    members: Vec<Member>,
}

/// A client of a cluster beside it.
#[derive(Debug, Clone)]
pub(crate) struct Bare {
    ports: Vec<u16>,
}

#[derive(Debug)]
struct Member {
    /// Plain addresses: of clients, and of other members.
    client: u16,
    peer: u16,
    /// The address with TLS.
    tls: u16,
    /// The address that the other members know.
    proxy: Proxy,
    process: Option<Kept>,
}

impl Cluster {
    /// Starts a cluster, and waits until it has a leader. `folder` is replaced.
    pub(crate) fn start(program: &Path, folder: &Path, setup: Setup) -> io::Result<Self> {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        std::fs::create_dir_all(folder)?;
        let links = Arc::new(Links::new(setup.members));
        let member = |n| {
            let peer = free_port()?;
            let proxy = Proxy::between_members(peer, n, links.clone())?;
            Ok(Member { client: free_port()?, peer, tls: free_port()?, proxy, process: None })
        };
        let members = (0..setup.members).map(member).collect::<io::Result<_>>()?;
        let (program, folder) = (program.to_owned(), folder.to_owned());
        let mut cluster = Self { program, folder, setup, links, members };
        (0..cluster.len()).try_for_each(|n| cluster.run(n))?;
        cluster.wait_for_leader()?;
        for n in 0..cluster.len() {
            let status = cluster.ask(n, "maintenance/status", "{}")?.body;
            let id = text_of(&status, "member_id").and_then(|id| id.parse().ok());
            cluster.links.name(n, id.ok_or_else(|| failed("a member without an id", &status))?);
        }
        Ok(cluster)
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns the addresses of the members, without TLS.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("http://127.0.0.1:{}", member.client)).collect()
    }

    /// Returns the addresses of the members, with TLS.
    pub(crate) fn tls_endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("https://127.0.0.1:{}", member.tls)).collect()
    }

    /// Returns a proxy before each member, for one client, whose links to them can then be cut.
    pub(crate) fn client_links(&self) -> io::Result<Vec<Proxy>> {
        self.members.iter().map(|member| Proxy::before(member.client)).collect()
    }

    /// Sends a request of the JSON gateway to a member: `path` is that after `/v3/`.
    pub(crate) fn ask(&self, n: usize, path: &str, body: &str) -> io::Result<Answer> {
        self.ask_as("", n, path, body)
    }

    /// Does the same as a user, with a token of `sign_in`.
    pub(crate) fn ask_as(
        &self,
        token: &str,
        n: usize,
        path: &str,
        body: &str,
    ) -> io::Result<Answer> {
        ask::ask(self.members[n].client, path, body, token, ANSWERS_MAX)
    }

    /// Returns a client without the store.
    pub(crate) fn bare(&self) -> Bare {
        Bare { ports: self.members.iter().map(|member| member.client).collect() }
    }

    /// Returns a token of a user.
    pub(crate) fn sign_in(&self, n: usize, user: &str, password: &str) -> io::Result<String> {
        let body = format!(r#"{{"name": "{user}", "password": "{password}"}}"#);
        let body = self.ask(n, "auth/authenticate", &body)?.body;
        text_of(&body, "token").ok_or_else(|| failed("no token", &body))
    }

    /// Returns the leader, if a majority of the members name the same one and it answers itself.
    pub(crate) fn leader(&self) -> Option<usize> {
        let mut named = vec![0; self.len()];
        for n in 0..self.len() {
            let answer = self.ask(n, "maintenance/status", "{}").ok();
            let leader = answer.and_then(|answer| text_of(&answer.body, "leader"));
            let id = leader.and_then(|id| id.parse().ok());
            if let Some(leader) = id.and_then(|id| self.links.member(id)) {
                named[leader] += 1;
            }
        }
        named.iter().position(|count| count * 2 > self.len())
    }

    /// Waits until each member that runs answers a linearizable read, so has a leader.
    pub(crate) fn wait_for_leader(&self) -> io::Result<()> {
        let end = Instant::now() + STARTS_MAX;
        let key = format!(r#"{{"key": "{}"}}"#, base64(b"\0"));
        for n in (0..self.len()).filter(|n| self.members[*n].process.is_some()) {
            loop {
                // Without a right the leader has refused it, so there is one.
                match self.ask(n, "kv/range", &key) {
                    Ok(answer) if matches!(answer.status, 200 | 400 | 401 | 403) => break,
                    _ if Instant::now() > end => {
                        return Err(failed("a member does not answer", &self.log(n)));
                    }
                    _ => thread::sleep(Duration::from_millis(20)),
                }
            }
        }
        Ok(())
    }

    /// Kills a member, as `kill -9` does.
    pub(crate) fn kill(&mut self, n: usize) {
        self.members[n].process = None;
    }

    /// Starts a member that was killed.
    pub(crate) fn run(&mut self, n: usize) -> io::Result<()> {
        let member = &self.members[n];
        let client = format!("http://127.0.0.1:{}", member.client);
        let name = |n: usize| format!("m{n}");
        let url = |proxy: &Proxy| format!("http://{}", proxy.address());
        let all = self.members.iter().enumerate();
        let all: Vec<_> = all.map(|(n, m)| format!("{}={}", name(n), url(&m.proxy))).collect();
        let mut listen = vec![client.clone()];
        let mut etcd = Command::new(&self.program);
        if let Some(tls) = &self.setup.tls {
            listen.push(format!("https://127.0.0.1:{}", member.tls));
            etcd.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&tls.client_ca);
            etcd.arg("--cert-file").arg(&tls.cert).arg("--key-file").arg(&tls.key);
        }
        if let Some(quota) = self.setup.quota {
            etcd.args(["--quota-backend-bytes", &quota.to_string()]);
        }
        etcd.args(["--name", &name(n), "--data-dir"]).arg(self.data(n));
        etcd.args(["--listen-client-urls", &listen.join(","), "--advertise-client-urls", &client]);
        etcd.args(["--listen-peer-urls", &format!("http://127.0.0.1:{}", member.peer)]);
        etcd.args(["--initial-advertise-peer-urls", &url(&member.proxy)]);
        etcd.args(["--initial-cluster", &all.join(",")]);
        // Names of the system must not lead past the proxies.
        etcd.env_clear();
        self.members[n].process = Some(Kept::start(&etcd, &self.log_file(n))?);
        Ok(())
    }

    /// Stops a member, as `kill -STOP` does: its connections stay open, and it does nothing.
    pub(crate) fn stop(&self, n: usize) {
        self.signal(n, "STOP");
    }

    /// Lets a member that was stopped go on.
    pub(crate) fn go_on(&self, n: usize) {
        self.signal(n, "CONT");
    }

    /// Cuts the links between a member and all other members.
    pub(crate) fn cut(&self, n: usize) {
        (0..self.len()).filter(|other| *other != n).for_each(|other| self.links.cut(n, other));
    }

    /// Ends all faults, and waits until all members answer again.
    pub(crate) fn heal(&mut self) -> io::Result<()> {
        self.links.heal();
        for n in 0..self.len() {
            if self.members[n].process.is_none() {
                self.run(n)?;
            }
            self.go_on(n);
        }
        self.wait_for_leader()
    }

    /// Kills all members, and keeps a copy of their data. They do not run after it.
    pub(crate) fn save(&mut self) -> io::Result<()> {
        self.copy_data("", ".saved")
    }

    /// Kills all members, and gives each the data of the last `save`. They do not run after it.
    pub(crate) fn put_back(&mut self) -> io::Result<()> {
        self.copy_data(".saved", "")
    }

    fn copy_data(&mut self, from: &str, to: &str) -> io::Result<()> {
        for n in 0..self.len() {
            self.kill(n);
            let place = |suffix| PathBuf::from(format!("{}{suffix}", self.data(n).display()));
            let (from, to) = (place(from), place(to));
            if to.exists() {
                std::fs::remove_dir_all(&to)?;
            }
            let copied = Command::new("cp").arg("-R").args([&from, &to]).status()?;
            if !copied.success() {
                return Err(failed("cannot copy", &from.display().to_string()));
            }
        }
        Ok(())
    }

    fn signal(&self, n: usize, signal: &str) {
        if let Some(process) = &self.members[n].process {
            process.signal(signal);
        }
    }

    fn data(&self, n: usize) -> PathBuf {
        self.folder.join(format!("m{n}"))
    }

    fn log_file(&self, n: usize) -> PathBuf {
        self.folder.join(format!("m{n}.log"))
    }

    /// Returns the end of the log of a member.
    fn log(&self, n: usize) -> String {
        let log = std::fs::read(self.log_file(n)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Bare {
    /// Puts a value under a key, by a member that may be down. Returns whether it was done.
    pub(crate) fn put(&self, n: usize, key: &str, value: &str, limit: Duration) -> bool {
        let [key, value] = [key, value].map(|text| base64(text.as_bytes()));
        let body = format!(r#"{{"key": "{key}", "value": "{value}"}}"#);
        let answer = ask::ask(self.ports[n % self.ports.len()], "kv/put", &body, "", limit);
        answer.is_ok_and(|answer| answer.status == 200)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.members.clear();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The longest wait for an answer. A member without a leader gives one after seven seconds.
const ANSWERS_MAX: Duration = Duration::from_secs(10);
/// The maximum time in which a cluster has a leader.
const STARTS_MAX: Duration = Duration::from_secs(60);

/// Returns a port on which nothing listens. It is below those that the system gives to outgoing
/// connections, so that no connection takes it while a member is down.
pub(crate) fn free_port() -> io::Result<u16> {
    use std::sync::atomic::{AtomicU32, Ordering};

    static NEXT: AtomicU32 = AtomicU32::new(0);
    let of_process = std::process::id().wrapping_mul(97);
    for _ in 0..1000 {
        let n = of_process.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let port = 10_000 + u16::try_from(n).unwrap_or_default();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::other("no port of this machine is free"))
}

fn failed(what: &str, found: &str) -> io::Error {
    io::Error::other(format!("{what}: {found}"))
}
