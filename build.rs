//! Compiles `kernels/*.cu` where it is asked for: with the feature `cuda` by nvcc, with the feature `cuda-twin` by a C++ compiler, for which the
//! variable `TRM_CUDA_TWIN` stands as well, so that a command without features can have it. The library learns of it as
//! `cfg(cuda_gpu)`, `cfg(cuda_twin)`, and `cfg(cuda)` for either.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const NO_NVCC: &str = "the feature `cuda` needs nvcc of CUDA 13.0: \
    pip install 'cuda-toolkit[nvcc,nvvm,crt,cudart,cccl]==13.0.2', then set CUDA_HOME to the folder nvidia/cu13 in site-packages";

/// Stands for the feature `cuda-twin`.
const TWIN_VARIABLE: &str = "TRM_CUDA_TWIN";

/// What a binary holds: code for compute capability 8.0 and 9.0 with its own instructions, and what newer ones translate.
const TARGETS: [&str; 3] =
    ["arch=compute_80,code=sm_80", "arch=compute_90a,code=sm_90a", "arch=compute_90,code=compute_90"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=kernels");
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH", "CXX", TWIN_VARIABLE] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let has_gpu = env::var_os("CARGO_FEATURE_CUDA").is_some();
    let has_twin = env::var_os("CARGO_FEATURE_CUDA_TWIN").is_some() || env::var_os(TWIN_VARIABLE).is_some();
    for (name, is_there) in [("cuda", has_gpu || has_twin), ("cuda_gpu", has_gpu), ("cuda_twin", has_twin)] {
        println!("cargo:rustc-check-cfg=cfg({name})");
        if is_there {
            println!("cargo:rustc-cfg={name}");
        }
    }
    // A linter links nothing.
    let wrapper = env::var_os("RUSTC_WORKSPACE_WRAPPER").unwrap_or_default();
    if Path::new(&wrapper).file_stem().is_some_and(|name| name == "clippy-driver") {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    if has_gpu {
        gpu(&out);
    }
    if has_twin {
        twin(&out);
    }
}

/// The kernels' sources, in order.
fn sources() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("kernels").unwrap_or_else(|e| stop(&format!("kernels: {e}")));
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "cu"));
    files.sort();
    files
}

fn gpu(out: &Path) {
    let nvcc = nvcc().unwrap_or_else(|| stop(NO_NVCC));
    let mut command = Command::new(&nvcc);
    command.args(["-lib", "-O3", "-std=c++17", "--threads=0"]);
    command.arg("-Xcompiler=-fPIC,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics");
    command.args(TARGETS.map(|target| format!("-gencode={target}")));
    command.arg("-o").arg(out.join("libtrm_gpu.a")).args(sources());
    run(&mut command, NO_NVCC);
    let home = nvcc.canonicalize().ok().and_then(|path| Some(path.parent()?.parent()?.to_owned())).unwrap_or_default();
    for folder in ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"] {
        if home.join(folder).join("libcudart_static.a").exists() {
            println!("cargo:rustc-link-search=native={}", home.join(folder).display());
        }
    }
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static=trm_gpu");
    println!("cargo:rustc-link-lib=static=cudart_static");
    for library in ["dl", "rt", "pthread"] {
        println!("cargo:rustc-link-lib={library}");
    }
}

/// `$NVCC`, or that of `$CUDA_HOME` or `$CUDA_PATH`, or the one on the path.
fn nvcc() -> Option<PathBuf> {
    let given = env::var_os("NVCC").map(PathBuf::from);
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os);
    let of_homes = homes.map(|home| PathBuf::from(home).join("bin/nvcc"));
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = env::split_paths(&path).map(|folder| folder.join("nvcc")).collect();
    given.into_iter().chain(of_homes).chain(on_path).find(|nvcc| nvcc.is_file())
}

/// The twin is a shared library: `.ci/asan-twin` puts another build of it in its place without compiling the program again.
fn twin(out: &Path) {
    const NO_COMPILER: &str = "the feature `cuda-twin` needs a C++20 compiler: install g++ or clang++, or set CXX";
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".into());
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let mut objects = Vec::new();
    let mut running = std::collections::VecDeque::new();
    let wait = |mut compiling: std::process::Child| {
        if !compiling.wait().is_ok_and(|status| status.success()) {
            stop(NO_COMPILER);
        }
    };
    for source in sources() {
        if running.len() == at_once {
            running.pop_front().into_iter().for_each(wait);
        }
        let object = out.join(source.file_stem().expect("a file")).with_extension("twin.o");
        let mut command = Command::new(&compiler);
        command.args(["-std=c++20", "-O1", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-DTRM_TWIN", "-x", "c++", "-c"]);
        // It is loaded with the program, so variables of threads have fixed places, which need not be asked for at each use.
        command.arg("-ftls-model=initial-exec");
        command.arg(&source).arg("-o").arg(&object);
        running.push_back(command.spawn().unwrap_or_else(|e| stop(&format!("{compiler}: {e}; {NO_COMPILER}"))));
        objects.push(object);
    }
    running.into_iter().for_each(wait);
    let mut link = Command::new(&compiler);
    run(link.arg("-shared").arg("-o").arg(out.join("libtrm_twin.so")).args(&objects).arg("-pthread"), NO_COMPILER);
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=dylib=trm_twin");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", out.display());
}

fn run(command: &mut Command, advice: &str) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => stop(&format!("{}: {status}; {advice}", command.get_program().to_string_lossy())),
        Err(e) => stop(&format!("{}: {e}; {advice}", command.get_program().to_string_lossy())),
    }
}

fn stop(message: &str) -> ! {
    eprintln!("{message}");
    exit(1)
}
