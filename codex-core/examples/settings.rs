//! Settings of a program whose next versions add, rename and retype fields.
use codex_core::{Codec, Result, Store};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The settings of the first version.
#[derive(Default, Serialize, Deserialize)]
struct First {
    theme: String,
    size: u32,
}

/// The settings of today. Each change of the first version is one attribute.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Settings {
    #[serde(alias = "theme")]
    colours: String,
    #[serde(alias = "size")]
    font_size: f32,
    recent: Vec<String>,
}

fn load<T: Default + DeserializeOwned>(store: &Store) -> Result<T> {
    Ok(store.get("settings")?.unwrap_or_default())
}

/// Changes the settings. Changes by several threads are all kept.
fn change(store: &Store, change: impl Fn(&mut Settings)) -> Result<()> {
    let changed = store.update("settings", |settings: Option<Settings>| {
        let mut settings = settings.unwrap_or_default();
        change(&mut settings);
        Some(settings)
    });
    changed.map(drop)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("settings.db");
    // JSON, because its objects name their fields.
    let options = Store::options().codec(Codec::Json);

    let store = options.open(&path)?;
    assert_eq!(load::<First>(&store)?.size, 0);
    store.set("settings", &First { theme: "dark".into(), size: 12 })?;
    store.close()?;

    let store = options.open(&path)?;
    let settings: Settings = load(&store)?;
    assert_eq!((settings.colours.as_str(), settings.font_size), ("dark", 12.0));
    std::thread::scope(|scope| {
        for name in ["a.txt", "b.txt", "c.txt"] {
            let store = &store;
            let opened = move |settings: &mut Settings| settings.recent.push(name.into());
            scope.spawn(move || change(store, opened).expect("the disk is healthy"));
        }
    });
    let mut recent = load::<Settings>(&store)?.recent;
    recent.sort();
    assert_eq!(recent, ["a.txt", "b.txt", "c.txt"]);
    Ok(())
}
