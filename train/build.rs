//! With feature `torch`: the shim is compiled against the libtorch that torch-sys found, and what is linked finds that
//! where it was at build time, with no LD_LIBRARY_PATH. What of it needs CUDA is a library by itself, linked to nothing: it
//! is opened where there is CUDA, and empty where its headers are not there.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Said by torch-sys, which is built only with the feature.
    if let Ok(folder) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
        #[cfg(feature = "torch")]
        compile_shim(std::path::Path::new(&folder));
    }
}

/// As torch-sys compiles its own. Nothing is linked that it does not link.
#[cfg(feature = "torch")]
fn compile_shim(libraries: &std::path::Path) {
    const SOURCE: &str = "shim/shim.cpp";
    println!("cargo::rerun-if-changed=shim");
    let setting = |name: &str| {
        println!("cargo::rerun-if-env-changed={name}");
        std::env::var(name).ok()
    };
    let include = match setting("LIBTORCH_INCLUDE") {
        Some(root) => std::path::Path::new(&root).join("include"),
        None => libraries.with_file_name("include"),
    };
    let abi = setting("LIBTORCH_CXX11_ABI").unwrap_or_else(|| "1".to_string());
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false).include(include).define("_GLIBCXX_USE_CXX11_ABI", abi.as_str());
    compile_graphs(build.clone(), libraries);
    build.file(SOURCE).compile("webdancer_shim");
}

/// Its symbols of libtorch are found when it is opened.
#[cfg(feature = "torch")]
fn compile_graphs(mut build: cc::Build, libraries: &std::path::Path) {
    const SOURCE: &str = "shim/graphs.cpp";
    let Some(out) = std::env::var_os("OUT_DIR") else { return };
    let library = std::path::Path::new(&out).join("libwebdancer_graphs.so");
    // Beside libtorch, where deploy/libtorch and PyTorch's own packages put them, or those of an installed CUDA.
    let places = [libraries.join("../../nvidia/cu13/include"), "/usr/local/cuda/include".into()];
    let headers = places.iter().find(|place| place.join("crt/host_defines.h").exists());
    let built = headers.is_some_and(|headers| {
        let mut command = build.include(headers).pic(true).get_compiler().to_command();
        // It lies in the program: without what debuggers read.
        command.args(["-shared", "-g0", "-s", SOURCE, "-o"]).arg(&library);
        command.status().is_ok_and(|status| status.success())
    });
    if !built {
        if headers.is_some() {
            println!("cargo::warning={SOURCE} does not compile: CUDA graphs are left out");
        }
        // Told when they are asked for.
        let _ = std::fs::write(&library, []);
    }
}
