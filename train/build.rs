//! With feature `torch`: the shim is compiled against the libtorch that torch-sys found, and what is linked finds that
//! where it was at build time, with no LD_LIBRARY_PATH.

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
    println!("cargo::rerun-if-changed={SOURCE}");
    let setting = |name: &str| {
        println!("cargo::rerun-if-env-changed={name}");
        std::env::var(name).ok()
    };
    let include = match setting("LIBTORCH_INCLUDE") {
        Some(root) => std::path::Path::new(&root).join("include"),
        None => libraries.with_file_name("include"),
    };
    let abi = setting("LIBTORCH_CXX11_ABI").unwrap_or_else(|| "1".to_string());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .include(include)
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .file(SOURCE)
        .compile("webdancer_shim");
}
