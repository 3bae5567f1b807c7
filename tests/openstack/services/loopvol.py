"""A Cinder driver that attaches on any Linux: each volume a sparse file, exported as a loop device of this host.

It is loaded by cinder-volume (``volume_driver = loopvol.LoopDriver``) and runs in Cinder's environment, whose libraries
are not here; hence nothing of it is type-checked.
"""

# mypy: ignore-errors

import contextlib
import os

from cinder import interface
from cinder.image import image_utils
from cinder.volume import driver, volume_utils
from oslo_concurrency import processutils
from oslo_config import cfg

OPTIONS = [cfg.StrOpt("loop_dir", default="$state_path/loop")]


@interface.volumedriver
class LoopDriver(driver.VolumeDriver):
    VERSION = "1.0"
    CI_WIKI_NAME = "none"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTIONS)

    @staticmethod
    def get_driver_options():
        return OPTIONS

    def do_setup(self, context):
        os.makedirs(self.configuration.loop_dir, exist_ok=True)

    def check_for_setup_error(self):
        pass

    def local_path(self, volume):
        return os.path.join(self.configuration.loop_dir, volume.name)

    def _device(self, volume):
        out, _ = processutils.execute("losetup", "-j", self.local_path(volume), "-n", "-O", "NAME")
        return out.split()[0] if out.strip() else None

    def _release(self, volume):
        device = self._device(volume)
        if device:
            processutils.execute("losetup", "-d", device)

    def _copy(self, source, target):
        processutils.execute("cp", "--sparse=always", source, target)

    def create_volume(self, volume):
        with open(self.local_path(volume), "wb") as file:
            file.truncate(volume.size << 30)

    def delete_volume(self, volume):
        self._release(volume)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.local_path(volume))

    def extend_volume(self, volume, size):
        os.truncate(self.local_path(volume), size << 30)
        device = self._device(volume)
        if device:
            processutils.execute("losetup", "-c", device)

    def create_cloned_volume(self, volume, source):
        self._copy(self.local_path(source), self.local_path(volume))
        self.extend_volume(volume, volume.size)

    def create_snapshot(self, snapshot):
        self._copy(self.local_path(snapshot.volume), self.local_path(snapshot))

    def delete_snapshot(self, snapshot):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.local_path(snapshot))

    def create_volume_from_snapshot(self, volume, snapshot):
        self._copy(self.local_path(snapshot), self.local_path(volume))
        self.extend_volume(volume, volume.size)

    def copy_image_to_volume(self, context, volume, image_service, image_id, disable_sparse=False):
        image_utils.fetch_to_raw(
            context,
            image_service,
            image_id,
            self.local_path(volume),
            self.configuration.volume_dd_blocksize,
            size=volume.size,
        )
        self.extend_volume(volume, volume.size)

    def copy_volume_to_image(self, context, volume, image_service, image_meta):
        volume_utils.upload_volume(context, image_service, image_meta, self.local_path(volume), volume)

    def ensure_export(self, context, volume):
        pass

    def create_export(self, context, volume, connector):
        pass

    def remove_export(self, context, volume):
        pass

    def initialize_connection(self, volume, connector, **kwargs):
        device = self._device(volume)
        if device is None:
            out, _ = processutils.execute("losetup", "-f", "--show", self.local_path(volume))
            device = out.strip()
        return {"driver_volume_type": "local", "data": {"device_path": device}}

    def terminate_connection(self, volume, connector, **kwargs):
        self._release(volume)

    def _update_volume_stats(self):
        space = os.statvfs(self.configuration.loop_dir)
        pool = {
            "pool_name": "loop",
            "total_capacity_gb": space.f_blocks * space.f_frsize / 2**30,
            "free_capacity_gb": space.f_bavail * space.f_frsize / 2**30,
            "reserved_percentage": 0,
            "thin_provisioning_support": True,
            "max_over_subscription_ratio": "20.0",
            "provisioned_capacity_gb": 0,
            "multiattach": True,
        }
        self._stats = {
            "volume_backend_name": self.configuration.safe_get("volume_backend_name") or "loop",
            "vendor_name": "none",
            "driver_version": self.VERSION,
            "storage_protocol": "local",
            "pools": [pool],
        }
