//! The answers of the server, each with the headers that keep browsers within its bounds.

use std::io::{self, Write};

use serde::Serialize;

/// An answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    kind: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// An answer that is a refusal. It is on the heap because it is rare.
pub(super) type Refused = Box<Answer>;

impl Answer {
    /// Returns the page, whose scripts and styles have this nonce.
    pub(super) fn page(html: String, nonce: &str) -> Self {
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
             connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
        );
        let headers = vec![("Content-Security-Policy", policy)];
        Self { status: 200, kind: "text/html; charset=utf-8", headers, body: html.into_bytes() }
    }

    /// Returns a value as JSON.
    pub(super) fn json(value: &impl Serialize) -> Self {
        let json = serde_json::to_string(value).expect("the answers have text as their names");
        // In JSON, `<` stands in strings only, where the escape means the same.
        let body = json.replace('<', "\\u003c").into_bytes();
        Self { status: 200, kind: "application/json", headers: Vec::new(), body }
    }

    /// Returns an answer that sends the browser to another address, with a cookie.
    pub(super) fn redirect(to: String, cookie: String) -> Self {
        let headers = vec![("Location", to), ("Set-Cookie", cookie)];
        Self { status: 303, kind: "text/plain; charset=utf-8", headers, body: Vec::new() }
    }

    /// Returns a refusal with the reason for it.
    pub(super) fn refuse(status: u16, why: &str) -> Refused {
        let headers = if status == 405 { vec![("Allow", "GET".to_owned())] } else { Vec::new() };
        let body = format!("{why}\n").into_bytes();
        Box::new(Self { status, kind: "text/plain; charset=utf-8", headers, body })
    }

    /// Writes the answer.
    pub(super) fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let reason = match self.status {
            200 => "OK",
            303 => "See Other",
            400 => "Bad Request",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            410 => "Gone",
            431 => "Request Header Fields Too Large",
            _ => "Internal Server Error",
        };
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", self.status);
        let len = self.body.len().to_string();
        let own = [("Content-Type", self.kind), ("Content-Length", &len)];
        let headers = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        // A refusal and a list of keys are no page: nothing in them is run or loaded.
        let has_policy = self.headers.iter().any(|(name, _)| *name == "Content-Security-Policy");
        let policy = (!has_policy).then_some(("Content-Security-Policy", NOTHING));
        for (name, value) in own.into_iter().chain(headers).chain(policy).chain(ALWAYS) {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        to.write_all(head.as_bytes())?;
        to.write_all(&self.body)
    }
}

const NOTHING: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; \
                       frame-ancestors 'none'; sandbox";

/// The headers of every answer.
const ALWAYS: [(&str, &str); 8] = [
    ("Cache-Control", "no-store"),
    ("Connection", "close"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("X-DNS-Prefetch-Control", "off"),
];
