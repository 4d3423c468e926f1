//! Proxies before the members, which hold back what passes between two ends.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A proxy before a port of this machine. It ends with this value.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The port of the server.
    port: u16,
    is_closed: AtomicBool,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    /// A proxy of one client.
    Client(Mutex<Flow>),
    /// A proxy before a member. The head of a request names the member that has sent it.
    Member { to: usize, links: Arc<Links> },
}

/// What passes through a proxy of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// All.
    Open,
    /// Requests, and no answers.
    NoAnswers,
    /// Nothing: the two ends hear nothing of each other.
    Cut,
}

/// The links between the members.
#[derive(Debug)]
pub(crate) struct Links {
    /// The ids that the members have drawn.
    ids: Mutex<Vec<u64>>,
    /// Both directions of each link that is cut.
    cut: Mutex<HashSet<(usize, usize)>>,
}

impl Links {
    pub(super) fn new(members: usize) -> Self {
        Self { ids: Mutex::new(vec![0; members]), cut: Mutex::default() }
    }

    /// Sets the id of a member.
    pub(super) fn name(&self, n: usize, id: u64) {
        locked(&self.ids)[n] = id;
    }

    /// Returns the member with this id.
    pub(super) fn member(&self, id: u64) -> Option<usize> {
        locked(&self.ids).iter().position(|known| *known == id)
    }

    pub(super) fn cut(&self, one: usize, other: usize) {
        locked(&self.cut).extend([(one, other), (other, one)]);
    }

    pub(super) fn heal(&self) {
        locked(&self.cut).clear();
    }

    /// Whether nothing passes now on a connection to the member `to`. The sender is not known
    /// before it has sent a head that names it.
    fn is_cut(&self, from: Option<u64>, to: usize) -> bool {
        let cut = locked(&self.cut);
        match from.and_then(|id| self.member(id)) {
            Some(from) => cut.contains(&(from, to)),
            None => cut.iter().filter(|(_, end)| *end == to).count() > 1,
        }
    }
}

impl Proxy {
    pub(super) fn before(port: u16) -> io::Result<Self> {
        Self::start(port, Rule::Client(Mutex::new(Flow::Open)))
    }

    pub(super) fn between_members(port: u16, to: usize, links: Arc<Links>) -> io::Result<Self> {
        Self::start(port, Rule::Member { to, links })
    }

    fn start(port: u16, rule: Rule) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", super::free_port()?))?;
        let shared = Arc::new(Shared { port, is_closed: AtomicBool::new(false), rule });
        let proxy = Self { address: listener.local_addr()?, shared };
        let shared = proxy.shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.is_closed.load(Ordering::Acquire) {
                    break;
                }
                let shared = shared.clone();
                thread::spawn(move || shared.connect(&stream));
            }
        });
        Ok(proxy)
    }

    /// Returns the address of the proxy, without the name of the protocol.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what passes. What a connection has held back by then is lost with it.
    pub(crate) fn set(&self, now: Flow) {
        if let Rule::Client(flow) = &self.shared.rule {
            *locked(flow) = now;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// Passes on what both ends of a connection send, until one of them closes it.
    fn connect(&self, client: &TcpStream) {
        let sender = Mutex::new(None);
        // A new connection through a cut is one that nobody answers.
        if !self.holds(&sender, false) {
            return;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return;
        };
        thread::scope(|scope| {
            scope.spawn(|| self.pump(&server, client, &sender, true));
            self.pump(client, &server, &sender, false);
        });
    }

    fn pump(&self, from: &TcpStream, to: &TcpStream, sender: &Mutex<Option<u64>>, answers: bool) {
        let (mut reader, mut writer) = (from, to);
        let _ = (from.set_nodelay(true), from.set_read_timeout(Some(LOOKS)));
        let mut bytes = vec![0; 64 * 1024];
        let mut before = Vec::new();
        while !self.is_closed.load(Ordering::Acquire) {
            let read = match reader.read(&mut bytes) {
                Ok(0) => break,
                Ok(read) => &bytes[..read],
                Err(e) if is_timeout(&e) => continue,
                Err(_) => break,
            };
            if !answers && locked(sender).is_none() {
                // The name may stand across two reads.
                before.extend_from_slice(read);
                *locked(sender) = sender_in(&before);
                before.drain(..before.len().saturating_sub(64));
            }
            if !self.holds(sender, answers) || writer.write_all(read).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    /// Waits while nothing passes. Returns false if that was so: then the connection has lost
    /// what was sent meanwhile.
    fn holds(&self, sender: &Mutex<Option<u64>>, answers: bool) -> bool {
        let is_cut = || match &self.rule {
            Rule::Client(flow) => match *locked(flow) {
                Flow::Open => false,
                Flow::NoAnswers => answers,
                Flow::Cut => true,
            },
            Rule::Member { to, links } => links.is_cut(*locked(sender), *to),
        };
        if !is_cut() {
            return true;
        }
        while is_cut() && !self.is_closed.load(Ordering::Acquire) {
            thread::sleep(LOOKS);
        }
        false
    }
}

/// The interval at which threads look whether a rule has changed.
const LOOKS: Duration = Duration::from_millis(20);

/// Finds the id of the member that has sent a request.
fn sender_in(bytes: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"X-Server-From: ";
    let at = bytes.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    let rest = &bytes[at..];
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    u64::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
