"""Cinder with all of its services in one process: API, scheduler, volumes and backups, with messages in memory.

`cinder_in_one.py ARGUMENTS OF CINDER`. Serves the API on the socket that is standard input, and ends with the process that
started it.
"""

from cinder import monkey_patch; monkey_patch.patch()  # noqa

import os
import socket
import sys

import eventlet
import eventlet.wsgi
import os_brick
from os_brick import privileged
from cinder import coordination, i18n, objects, privsep, rpc, service, utils, version

i18n.enable_lazy()
from cinder.cmd import backup  # noqa: for its options
from cinder.common import config
from oslo_config import cfg
from oslo_log import log as logging
from oslo_service import service as services
from oslo_service import wsgi

CONF = cfg.CONF
CONF.register_opt(cfg.StrOpt("backend_host"), group="files")


def end_with_parent(parent):
    while os.getppid() == parent:
        eventlet.sleep(0.5)
    os._exit(1)


def live_together():
    """Undoes what Cinder takes for granted of services that are each in a process of their own."""
    from cinder.scheduler import host_manager

    report_state = service.Service.report_state

    def report_own_state(self):
        # The identity under which a service says that it lives is one for the whole process: that of the last one started.
        service.Service.service_id = self.origin_service_id
        report_state(self)

    service.Service.report_state = report_own_state
    # Messages in memory are not made into text and back, so that this kind of dictionary arrives where a plain one should.
    host_manager.ReadOnlyDict.copy = lambda self: dict(self)


def main():
    eventlet.spawn(end_with_parent, os.getppid())
    objects.register_all()
    live_together()
    CONF(sys.argv[1:], project="cinder", version=version.version_string())
    config.set_middleware_defaults()
    logging.setup(CONF, "cinder")
    for context in (privsep.sys_admin_pctxt, privileged.default, privileged.brick_privsep_hide_output):
        # What needs privileges is done in this process, or refused by the system: there is no sudo here.
        context.set_client_mode(False)
    os_brick.setup(CONF)
    coordination.COORDINATOR.start()
    rpc.init(CONF)
    launcher = services.launch(CONF, service.Service.create(binary="cinder-scheduler"), restart_method="mutate")
    for backend in CONF.enabled_backends:
        host = f"{CONF.host}@{backend}"
        launcher.launch_service(
            service.Service.create(host=host, service_name=backend, binary="cinder-volume", coordination=True)
        )
    semaphore = utils.semaphore_factory(15, 1)
    launcher.launch_service(
        service.Service.create(
            binary="cinder-backup", coordination=True, service_name="backup", process_number=1, semaphore=semaphore
        )
    )
    application = wsgi.Loader(CONF).load_app(name="osapi_volume")
    listener = socket.socket(fileno=0)
    eventlet.spawn(eventlet.wsgi.server, listener, application, log_output=False)
    launcher.wait()


main()
