-- For services with min = 0: hold a request while its service has no replica. The wait ends when a replica is ready
-- or when the time limit is reached.
-- HAProxy Lua API: http://www.arpalert.org/src/haproxy-lua-api/2.8/ (register_action, msleep, now).

local PAUSE = 20 -- milliseconds between two checks; only this request sleeps, not the HAProxy worker

local function clock()
    local now = core.now()
    return now.sec + now.usec / 1000000
end

core.register_action("escala_hold", { "http-req" }, function(txn, backend, seconds)
    local deadline = clock() + tonumber(seconds)
    while txn.f:nbsrv(backend) == 0 and clock() < deadline do
        core.msleep(PAUSE)
    end
end, 2)
