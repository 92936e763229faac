select kind, value, floor(extract(epoch from revoked_at))::bigint as since
from escala.revocation where expires_at > now()
