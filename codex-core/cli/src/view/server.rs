//! The threads of the server. A client that is slow, or hostile, holds up no other one.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::view::request::{HEAD_LEN_MAX, Request, Timed};
use crate::view::site::Site;

/// A server with its threads. Dropping it ends them.
pub(super) struct Running {
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    site: Site,
    is_ended: AtomicBool,
    connections: Mutex<Connections>,
}

/// The open connections, in the order in which they were made.
#[derive(Default)]
struct Connections {
    made: u64,
    open: VecDeque<Connection>,
}

struct Connection {
    number: u64,
    stream: TcpStream,
    /// Whether its request has the cookie.
    is_trusted: bool,
}

impl Running {
    pub(super) fn start(listener: TcpListener, site: Site) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            site,
            is_ended: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let of_thread = Arc::clone(&shared);
        let name = "codexdb-view".to_owned();
        let listening =
            thread::Builder::new().name(name).spawn(move || of_thread.run(&listener))?;
        Ok(Self { shared, listening: Some(listening) })
    }

    pub(super) fn site(&self) -> &Site {
        &self.shared.site
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.is_ended.store(true, Ordering::SeqCst);
        // The thread waits for a connection, so it gets one. If that fails, the thread ends with
        // the next connection, and is not waited for.
        let woken = TcpStream::connect(self.shared.site.local_addr());
        if woken.is_ok()
            && let Some(listening) = self.listening.take()
        {
            let _ = listening.join();
        }
        for connection in self.shared.connections().open.drain(..) {
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn run(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.is_ended.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else {
                // No descriptor is free. Some are after a pause.
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            let Some(number) = self.admit(&stream) else { continue };
            let shared = Arc::clone(self);
            let answer = move || {
                // The other side may be gone at any time, which is no error of this one.
                let _ = shared.answer(number, stream);
                shared.connections().remove(number);
            };
            let thread = thread::Builder::new().name("codexdb-view".to_owned());
            if thread.stack_size(STACK_LEN).spawn(answer).is_err() {
                self.connections().remove(number);
            }
        }
    }

    /// Adds a connection. If there are too many, ends the oldest one of those that have no cookie,
    /// so that clients which only hold connections do not keep others out.
    fn admit(&self, stream: &TcpStream) -> Option<u64> {
        let stream = stream.try_clone().ok()?;
        let mut connections = self.connections();
        connections.made += 1;
        let number = connections.made;
        connections.open.push_back(Connection { number, stream, is_trusted: false });
        if connections.open.len() > CONNECTIONS_MAX {
            let oldest = connections.open.iter().position(|connection| !connection.is_trusted);
            if let Some(evicted) = connections.open.remove(oldest.unwrap_or_default()) {
                let _ = evicted.stream.shutdown(Shutdown::Both);
            }
        }
        Some(number)
    }

    /// Answers the one request of a connection.
    fn answer(&self, number: u64, stream: TcpStream) -> io::Result<()> {
        let mut connection = Timed::new(stream, READING_MAX);
        let answer = match Request::read(&mut connection)? {
            Ok(request) => match self.site.admit(&request) {
                Ok(page) => {
                    self.connections().trust(number);
                    page.answer(&request).unwrap_or_else(|refused| *refused)
                }
                Err(refused) => *refused,
            },
            Err(refused) => *refused,
        };
        let mut connection = connection.again(WRITING_MAX);
        answer.write(&mut connection)?;
        connection.finish()?;
        // The system discards an answer if bytes of the request are unread when a connection ends.
        let mut connection = connection.again(UNREAD_MAX);
        let mut unread = [0; 4096];
        for _ in 0..HEAD_LEN_MAX / unread.len() {
            if connection.read(&mut unread)? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        // Nothing under this lock panics between two changes.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn remove(&mut self, number: u64) {
        self.open.retain(|connection| connection.number != number);
    }

    fn trust(&mut self, number: u64) {
        let mut open = self.open.iter_mut();
        if let Some(connection) = open.find(|connection| connection.number == number) {
            connection.is_trusted = true;
        }
    }
}

/// The maximum number of open connections, each of which has a thread.
const CONNECTIONS_MAX: usize = 64;
const STACK_LEN: usize = 512 << 10;
/// The time in which a client sends its request.
const READING_MAX: Duration = Duration::from_secs(10);
/// The time in which a client reads the answer.
const WRITING_MAX: Duration = Duration::from_secs(30);
/// The time for which the rest of a refused request is read.
const UNREAD_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use codex_core::Store;

    use super::{CONNECTIONS_MAX, Shared};
    use crate::view::site::Site;

    #[test]
    fn the_oldest_connection_without_a_cookie_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let site = Site::new(&Store::in_memory().unwrap(), None, false, address).unwrap();
        let shared =
            Shared { site, is_ended: AtomicBool::new(false), connections: Mutex::default() };
        let mut clients = Vec::new();
        let mut connect = || {
            clients.push(TcpStream::connect(address).unwrap());
            shared.admit(&listener.accept().unwrap().0).unwrap()
        };
        let trusted = connect();
        shared.connections().trust(trusted);
        let second = connect();
        for _ in 2..CONNECTIONS_MAX {
            connect();
        }
        let open = || -> Vec<u64> {
            shared.connections().open.iter().map(|connection| connection.number).collect()
        };
        assert_eq!(open().len(), CONNECTIONS_MAX);
        connect();
        assert_eq!(open().len(), CONNECTIONS_MAX);
        assert!(open().contains(&trusted) && !open().contains(&second));
        // Its client is told so.
        assert_eq!(clients[1].read(&mut [0]).unwrap(), 0);
    }
}
