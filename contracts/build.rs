//! Compiles the protobuf services into `OUT_DIR` without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/billing.proto", "proto/wallet.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
