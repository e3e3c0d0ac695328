//! The app around the page: a window, and the bridge to the sidecar.

#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]

/// What this app's own back end does; a real app has more of them, and leaves them as they are.
#[tauri::command]
fn app_version(app: tauri::AppHandle) -> String {
    app.package_info().version.to_string()
}

fn main() {
    env_logger::init();
    tauri::Builder::default()
        .plugin(tauri_plugin_clawpal_sidecar::init())
        .invoke_handler(tauri_plugin_clawpal_sidecar::routed(tauri::generate_handler![app_version]))
        .run(tauri::generate_context!())
        .expect("the app can't run");
}
