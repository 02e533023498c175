#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Calls those parts of Debian's Python packages that run qemu-img, as they are installed.

    real_users.py PROGRAM

Works in the current folder, with the qemu-img that stands first in PATH; an exception says
that the program could not do its work with it. The interpreter is the system's, whose
packages these are. Used by scripts/real-users and tests/users.bats.
"""
import os
import subprocess
import sys

MIB = 1 << 20


def qemu_img(*arguments):
    return subprocess.run(["qemu-img", *arguments], check=True, stdout=subprocess.PIPE,
                          encoding="utf-8").stdout


def expect(got, wanted):
    if got != wanted:
        raise SystemExit(f"got {got!r}, not {wanted!r}")


def same(a, b):
    subprocess.run(["cmp", a, b], check=True)


def make_images():
    """disk.raw, and base.qcow2 with its contents under the overlay top.qcow2."""
    with open("disk.raw", "wb") as f:
        f.write(b"MBR" * 100_000)
        f.truncate(64 * MIB)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", "disk.raw", "base.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")


def use_oslo():
    """oslo.utils reads what info says, as text and as JSON: OpenStack's eyes."""
    import warnings

    from oslo_utils import imageutils
    warnings.simplefilter("ignore")
    qemu_img("snapshot", "-c", "before", "top.qcow2")
    for arguments, kind in ((["--output=json"], "json"), ([], "human")):
        info = imageutils.QemuImgInfo(qemu_img("info", *arguments, "top.qcow2"), format=kind)
        expect(info.file_format, "qcow2")
        expect(info.virtual_size, 64 * MIB)
        expect(info.cluster_size, 65536)
        expect(info.backing_file, "base.qcow2")
        expect(info.backing_file_format, "qcow2")
        expect(0 < info.disk_size < MIB, True)
        if kind == "json":
            expect(info.format_specific["data"]["compat"], "1.1")
            expect([s["name"] for s in info.snapshots], ["before"])


def use_autopkgtest():
    """autopkgtest-virt-qemu finds the format of its image, and lays an overlay over it."""
    from types import SimpleNamespace
    sys.path.insert(0, "/usr/share/autopkgtest/lib")
    import autopkgtest_qemu
    image = autopkgtest_qemu.QemuImage(os.path.abspath("base.qcow2"))
    expect(image.format, "qcow2")
    expect(autopkgtest_qemu.QemuImage("disk.raw").format, "raw")
    machine = SimpleNamespace(overlay_dir=None, workdir=os.getcwd())
    overlay = autopkgtest_qemu.Qemu.prepare_overlay(machine, image)
    image = autopkgtest_qemu.QemuImage(overlay)
    expect(image.format, "qcow2")
    qemu_img("convert", "-O", "raw", overlay, "back.raw")
    same("disk.raw", "back.raw")


def use_kiwi():
    """kiwi grows a raw disk and makes its compressed qcow2 image of it."""
    from unittest import mock

    from kiwi.storage.subformat.qcow2 import DiskFormatQcow2
    description = mock.MagicMock()
    description.xml_data.get_name.return_value = "disk"
    description.get_image_version.return_value = "1.0"
    target = os.path.join(os.getcwd(), "kiwi")
    os.mkdir(target)
    disk = DiskFormatQcow2(description, target, target, {"cluster_size=128k": None})
    os.rename("disk.raw", disk.diskname)
    expect(disk.resize_raw_disk(80 * MIB), True)
    expect(disk.resize_raw_disk(16 * MIB, append=True), True)
    disk.create_image_format()
    made = disk.get_target_file_path_for_format("qcow2")
    qemu_img("convert", "-O", "raw", made, "back.raw")
    expect(os.path.getsize("back.raw"), 96 * MIB)
    same(disk.diskname, "back.raw")


def use_nova():
    """nova looks at an image, lays an instance's disk over it, and converts a snapshot."""
    from nova import conf, exception
    from nova.privsep import qemu
    from nova.virt import images
    from nova.virt.libvirt import utils
    conf.CONF([], project="nova", default_config_files=[])
    base = os.path.abspath("base.qcow2")
    info = images.qemu_img_info(base)
    expect((info.file_format, info.virtual_size), ("qcow2", 64 * MIB))
    utils.create_image("disk", "qcow2", 80 * MIB, backing_file=base)
    info = images.qemu_img_info("disk", "qcow2")
    expect((info.virtual_size, info.backing_file), (80 * MIB, base))
    utils.create_image("plain.raw", "raw", "8M")
    expect(os.path.getsize("plain.raw"), 8 * MIB)
    for compress in (False, True):
        qemu.unprivileged_convert_image(base, "snap.qcow2", "qcow2", "qcow2", os.getcwd(),
                                        compress)
        images.convert_image_unsafe("snap.qcow2", "back.raw", "raw")
        same("disk.raw", "back.raw")
    try:
        qemu.unprivileged_qemu_img_info("missing.qcow2")
    except exception.DiskNotFound:
        return
    raise SystemExit("nova does not see that an image is missing")


def use_cinder():
    """cinder looks at an image, converts it both ways, and grows a volume."""
    from cinder.image import image_utils
    if not image_utils.qemu_img_supports_force_share():
        raise SystemExit("cinder takes it for an old qemu-img")
    info = image_utils.qemu_img_info("base.qcow2", run_as_root=False, force_share=True)
    expect((info.file_format, info.virtual_size), ("qcow2", 64 * MIB))
    expect(image_utils.qemu_img_info("disk.raw", run_as_root=False).file_format, "raw")
    image_utils.convert_image("base.qcow2", "volume.raw", "raw", src_format="qcow2",
                              run_as_root=False)
    same("disk.raw", "volume.raw")
    image_utils.convert_image("volume.raw", "upload.qcow2", "qcow2", src_format="raw",
                              run_as_root=False, compress=True)
    image_utils.resize_image("upload.qcow2", 1, file_format="qcow2")
    info = image_utils.qemu_img_info("upload.qcow2", run_as_root=False)
    expect(info.virtual_size, 1 << 30)


def use_glance():
    """glance's import converts an image, once it has been found to be what it claims."""
    from unittest import mock

    from glance.async_.flows.plugins import image_conversion as plugin
    from glance.common import wsgi  # noqa: F401 (defines options that the plugin reads)
    from oslo_config import cfg
    cfg.CONF([], project="glance", default_config_files=[])
    cfg.CONF.set_override("output_format", "raw", group="image_conversion")
    wrapper = mock.MagicMock()
    wrapper.__enter__.return_value.image_disk_format = "qcow2"
    context = mock.MagicMock()
    task = plugin._ConvertImage(context, "task", "import", wrapper)
    source = os.path.abspath("base.qcow2")
    target = task.execute("file://" + source)
    same("disk.raw", target[len("file://"):])


def use_ironic():
    """ironic's library looks at an image and converts it, within a limited address space."""
    from unittest import mock

    from ironic_lib import disk_utils
    from oslo_config import cfg
    cfg.CONF([], project="ironic", default_config_files=[])
    expect(disk_utils.qemu_img_info("top.qcow2").virtual_size, 64 * MIB)
    expect(disk_utils.get_image_mb("top.qcow2"), 64)
    disk_utils.convert_image("top.qcow2", "back.raw", "raw", cache="directsync",
                             out_of_order=True, sparse_size="0")
    same("disk.raw", "back.raw")
    with mock.patch.object(disk_utils.utils, "execute", wraps=disk_utils.utils.execute) as run:
        os.remove("back.raw")
        disk_utils.populate_image("base.qcow2", "back.raw")
        expect(run.call_args[1]["prlimit"].address_space, 2 << 30)
    same("disk.raw", "back.raw")


def use_mkosi():
    """mkosi's last step writes qcow2 into a file that it holds open and goes on to use."""
    from types import SimpleNamespace

    import mkosi
    config = SimpleNamespace(output_format=mkosi.OutputFormat.gpt_ext4, qcow2=True,
                             output=os.path.abspath("disk.qcow2"))
    with open("disk.raw", "rb") as raw:
        made = mkosi.qcow2_output(config, raw)
    expect(os.fstat(made.fileno()).st_ino, os.stat(made.name).st_ino)
    qemu_img("convert", "-f", "qcow2", "-O", "raw", made.name, "back.raw")
    same("disk.raw", "back.raw")


def use_sbuild_qemu():
    """sbuild-qemu makes a snapshot unless the table of them has one of the same second."""
    import datetime
    from importlib.machinery import SourceFileLoader
    from unittest import mock
    now = datetime.datetime(2026, 1, 2, 3, 4, 5)
    for name in ("sbuild-qemu-boot", "sbuild-qemu-update"):
        program = SourceFileLoader("program", "/usr/bin/" + name).load_module()
        with mock.patch.object(program, "datetime") as clock:
            clock.datetime.now.return_value = now
            expect(program.make_snapshot("base.qcow2"), True)
            expect(program.make_snapshot("base.qcow2"), False)
        now += datetime.timedelta(seconds=1)
    listed = qemu_img("snapshot", "-l", "base.qcow2")
    expect([line.split()[1] for line in listed.splitlines()[2:]],
           ["2026-01-02_030405", "2026-01-02_030406"])


def main():
    users = {name[4:]: f for name, f in globals().items() if name.startswith("use_")}
    make_images()
    users[sys.argv[1]]()


if __name__ == "__main__":
    main()
