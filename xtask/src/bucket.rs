//! `bucket`: tests backups in a bucket against moto, a server of S3 in Python, which it installs
//! into the target directory.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::thread;
use std::time::Duration;

use pico_args::Arguments;

use crate::cluster::free_port;
use crate::program::{Run, apt, part};
use crate::workspace::Workspace;
use crate::{Command, Outcome, test};

pub(crate) const COMMAND: Command = Command {
    name: "bucket",
    args: "",
    about: "backups in a bucket, against a server that it installs from PyPI into target",
    run,
};

/// The packages of the server, fewer than its own list (`moto[s3,server]`), which brings Docker.
const PACKAGES: &str = "moto[s3]==5.2.5 flask flask-cors";
/// The tests that need a server.
const NEEDS_SERVER: usize = 5;
/// Writes a certificate that signs itself, for `localhost`, and its key. The package is one that
/// the server brings.
const CERTIFICATE: &str = r#"
from datetime import datetime, timedelta
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
begin = datetime.utcnow() - timedelta(days=1)
cert = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), begin,
                               begin + timedelta(days=36500))
cert = cert.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
cert = cert.sign(key, hashes.SHA256())
pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
open("key.pem", "wb").write(
    key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
open("cert.pem", "wb").write(cert.public_bytes(pem))
"#;
/// The maximum time for the server to start, in tenths of a second.
const STARTS_MAX: u32 = 600;

fn run(workspace: &Workspace, words: Arguments) -> Outcome {
    COMMAND.done(words)?;
    let folder = workspace.target()?.join("moto");
    let servers = match part("install moto", || install(&folder)) {
        Ok(()) => Some(part("start moto", || {
            let plain = Server::start(&folder, "")?;
            Ok((plain, Server::start(&folder, "-c cert.pem -k key.pem")?))
        })?),
        // A machine that checks changes must not leave it out in silence.
        Err(why) if std::env::var_os("CI").is_some() => return Err(why),
        Err(why) => {
            println!("  no server: {why}");
            None
        }
    };
    let mut cargo = workspace.cargo("test --quiet --test s3");
    cargo.words(&test::whole(workspace)?);
    if let Some((plain, tls)) = &servers {
        cargo.env("CODEX_S3", format!("http://127.0.0.1:{}", plain.port));
        cargo.env("CODEX_S3_TLS", format!("https://localhost:{}", tls.port));
        cargo.env("CODEX_S3_CA", folder.join("cert.pem"));
    }
    let ended = cargo.collect(None, true)?;
    match (ended.success(), servers.is_some()) {
        (true, _) if !ended.output.contains(" passed") => Err("no test ran".to_owned()),
        (true, true) => Ok("all against a server".to_owned()),
        (true, false) => Ok(format!("left out: {NEEDS_SERVER} tests against a server")),
        (false, _) => Err("backups in a bucket fail".to_owned()),
    }
}

/// Installs the server, unless it is there.
fn install(folder: &Path) -> Outcome<()> {
    // The last file that is written.
    if folder.join("cert.pem").exists() {
        return Ok(());
    }
    let refused = |e: String| {
        let reason = e.lines().last().unwrap_or_default().to_owned();
        format!("the test server cannot be installed with python3: {reason}")
    };
    // Debian has the module in a package of its own.
    if Process::new("python3").words("-m ensurepip --version").read().is_err()
        && Path::new("/etc/debian_version").exists()
    {
        apt("update").quiet().map_err(refused)?;
        let install = "install --yes --no-install-recommends python3-venv";
        apt(install).quiet().map_err(refused)?;
    }
    // What an interrupted installation has left is not used again.
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    Process::new("python3").words("-m venv").arg(folder).quiet().map_err(refused)?;
    let mut pip = Process::new(folder.join("bin/pip"));
    pip.words("install --quiet --disable-pip-version-check --only-binary :all:");
    pip.words(PACKAGES).quiet().map_err(refused)?;
    let mut python = Process::new(folder.join("bin/python"));
    python.args(["-c", CERTIFICATE]).current_dir(folder).quiet().map_err(refused)?;
    Ok(())
}

/// A server that runs until it is dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts the server on a free port, with these arguments.
    fn start(folder: &Path, args: &str) -> Outcome<Self> {
        let port = free_port().map_err(|e| e.to_string())?;
        let mut server = Process::new(folder.join("bin/moto_server"));
        server.words("-H 127.0.0.1 -p").arg(port.to_string()).words(args).current_dir(folder);
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = server.spawn().map_err(|e| format!("cannot start moto_server: {e}"))?;
        let server = Self { child, port };
        for _ in 0..STARTS_MAX {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(server);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Err("moto_server does not answer".to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
