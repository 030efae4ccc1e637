"""Reads a nova.conf as Nova does, logs in as [service_user], and says as whom: user, project, roles."""

import sys

import nova.conf
from keystoneauth1 import loading
from nova.conf import service_token

CONF = nova.conf.CONF
GROUP = service_token.SERVICE_USER_GROUP

CONF([], project="nova", default_config_files=[sys.argv[1]])
if not CONF.service_user.send_service_user_token:
    sys.exit("no token would be sent")
auth = loading.load_auth_from_conf_options(CONF, GROUP)
session = loading.load_session_from_conf_options(CONF, GROUP)
access = auth.get_access(session)
print(access.username, access.project_name, *sorted(access.role_names))
