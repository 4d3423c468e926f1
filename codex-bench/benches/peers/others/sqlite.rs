//! `SQLite`: a B-tree and a write-ahead log.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use codex_bench::Outcome;
use codex_bench::report::Group;
use rusqlite::{Connection, params};

use crate::engine::Promise::{Memory, Os, Sync};
use crate::engine::{Engine, Kind, Pair, Promise, Visit, read};

pub(super) const KIND: Kind = Kind {
    name: "SQLite",
    package: "rusqlite",
    group: Group::Other,
    promises: &[Sync, Os, Memory],
    weaker: &[],
    settings: "WAL with synchronous FULL / OFF, or in memory; cache of 256 MiB, WITHOUT ROWID, \
               prepared statements, one connection for writes, others for reads",
    open: |folder, promise| {
        let path = folder.join("sqlite");
        let writer = connect(&path, promise)?;
        let table = "CREATE TABLE IF NOT EXISTS t (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID";
        writer.execute_batch(table)?;
        Ok(Box::new(Sqlite { path, promise, writer: writer.into(), readers: Mutex::default() }))
    },
};

struct Sqlite {
    path: PathBuf,
    promise: Promise,
    writer: Mutex<Connection>,
    /// The connections that no thread uses at the moment.
    readers: Mutex<Vec<Connection>>,
}

fn connect(path: &PathBuf, promise: Promise) -> Outcome<Connection> {
    if promise == Memory {
        return Ok(Connection::open_in_memory()?);
    }
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = if promise == Sync { "FULL" } else { "OFF" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    // In KiB, as a negative number. The default of 2 MiB is less than any other store has.
    connection.pragma_update(None, "cache_size", -(256 << 10))?;
    Ok(connection)
}

impl Sqlite {
    /// Calls `work` with a connection that no other thread uses.
    fn read<R>(&self, work: impl FnOnce(&Connection) -> Outcome<R>) -> Outcome<R> {
        if self.promise == Memory {
            return work(&*self.writer.lock().map_err(|_| POISONED)?);
        }
        let free = self.readers.lock().map_err(|_| POISONED)?.pop();
        let connection = match free {
            Some(connection) => connection,
            None => connect(&self.path, self.promise)?,
        };
        let done = work(&connection);
        self.readers.lock().map_err(|_| POISONED)?.push(connection);
        done
    }
}

impl Engine for Sqlite {
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome {
        let writer = self.writer.lock().map_err(|_| POISONED)?;
        writer.prepare_cached(SQL_SET)?.execute(params![key, value])?;
        Ok(())
    }

    fn load(&self, pairs: &[Pair]) -> Outcome {
        let writer = self.writer.lock().map_err(|_| POISONED)?;
        let write = writer.unchecked_transaction()?;
        let mut set = write.prepare_cached(SQL_SET)?;
        for (key, value) in pairs {
            set.execute(params![key, value])?;
        }
        drop(set);
        Ok(write.commit()?)
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        self.read(|db| {
            let mut query = db.prepare_cached("SELECT v FROM t WHERE k = ?1")?;
            let mut rows = query.query(params![key])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            Ok(Some(read(row.get_ref(0)?.as_blob()?)))
        })
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Outcome {
        self.read(|db| {
            let mut query = db.prepare_cached("SELECT k, v FROM t WHERE k >= ?1 ORDER BY k")?;
            let mut rows = query.query(params![from])?;
            while let Some(row) = rows.next()? {
                if !visit(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?) {
                    break;
                }
            }
            Ok(())
        })
    }
}

const SQL_SET: &str = "INSERT INTO t VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = ?2";
const POISONED: &str = "a thread panicked";
