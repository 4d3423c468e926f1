//! The handlers of a web server, as axum calls them: async functions that share a state. Here the
//! requests come from a channel of tokio.
use codex_core::{AsyncStore, Result, Store};
use tokio::sync::{mpsc, oneshot};

enum Request {
    /// Counts a visit of a page.
    Visit(String),
    /// Adds a comment to a page, and returns the number of its comments.
    Comment(String, String),
    /// The visits of a page.
    Visits(String),
}

/// Counts the visit. The commit of many requests is one sync.
async fn visit(store: &AsyncStore, page: &str) -> Result<u64> {
    let add = |visits: Option<u64>| Some(visits.unwrap_or(0) + 1);
    Ok(store.update(format!("visits/{page}"), add).await?.unwrap_or(0))
}

/// Writes the comment and its number in one commit. The closure waits for nothing.
async fn comment(store: &AsyncStore, page: &str, text: &str) -> Result<u64> {
    let add = store.transaction(|tx| {
        let number = tx.get::<u64>(format!("comments/{page}"))?.unwrap_or(0) + 1;
        tx.set(format!("comments/{page}"), &number)?;
        tx.set(format!("comment/{page}/{number:08}"), text)?;
        Ok(number)
    });
    add.await
}

/// Answers one request. Reads are from memory: they are plain calls.
async fn handle(store: AsyncStore, request: Request) -> Result<u64> {
    match request {
        Request::Visit(page) => visit(&store, &page).await,
        Request::Comment(page, text) => comment(&store, &page, &text).await,
        Request::Visits(page) => Ok(store.get(format!("visits/{page}"))?.unwrap_or(0)),
    }
}

type Answer = oneshot::Sender<Result<u64>>;

/// Serves each request in a task of its own, until no more come.
async fn serve(store: AsyncStore, mut requests: mpsc::Receiver<(Request, Answer)>) {
    while let Some((request, answer)) = requests.recv().await {
        let handled = handle(store.clone(), request);
        tokio::spawn(async move {
            // A client that no longer waits takes nothing back.
            let _ = answer.send(handled.await);
        });
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("pages.db");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    runtime.block_on(async {
        let store = AsyncStore::open(Store::options(), &path).await?;
        let (client, requests) = mpsc::channel(64);
        let server = tokio::spawn(serve(store.clone(), requests));

        // Two hundred clients at the same time.
        let mut answers = Vec::new();
        for number in 0..200 {
            let request = match number % 2 {
                0 => Request::Visit("home".into()),
                _ => Request::Comment("home".into(), format!("comment {number}")),
            };
            let (answer, answered) = oneshot::channel();
            client.send((request, answer)).await?;
            answers.push(answered);
        }
        for answer in answers {
            answer.await??;
        }

        let (answer, visits) = oneshot::channel();
        client.send((Request::Visits("home".into()), answer)).await?;
        assert_eq!(visits.await??, 100);
        assert_eq!(store.prefix("comment/home/").count(), 100);

        drop(client);
        server.await?;
        store.close().await?;
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;

    // All of it is on disk.
    assert_eq!(Store::open(&path)?.get::<u64>("visits/home")?, Some(100));
    Ok(())
}
