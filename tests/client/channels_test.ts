/** Virtual channels and subscriber queues with our server. */

import { channelCases } from "./channel_cases.ts";
import { testWithOwnServer } from "./own_server.ts";

testWithOwnServer(channelCases);
