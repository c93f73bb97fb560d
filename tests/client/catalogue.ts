/**
 * The reference's tests of its client (`client_test`, specification, section 10.1) by those of ours that hold the same:
 * first ours, then theirs. What ours is called may be the beginning of its title.
 */
export const catalogue: readonly (readonly [ours: string, reference: string])[] = [
  // Connecting
  [
    "a message is read once, as it was written, with its number and its time",
    "Init CreatePublisher PublishSingleMessage PublishSingleMessageAndRead MessageGetters " +
    "GetCurrentOrdinal CreatePublisherThenSubscriber CreateSubscriber Mikael",
  ],
  [
    "two clients exchange messages both ways",
    "CreatePublisherThenSubscriberDifferentClient FreeCreatePublisher FreeCreateSubscriber " +
    "FreeCreatePublisherAndSubscriberRoundTrip",
  ],
  [
    "no server is an error at once, or after waiting for one",
    "FreeCreatePublisherBadSocket FreeCreateSubscriberBadSocket",
  ],

  // Creating, types, sizes
  [
    "both ends know the channel's type and sizes, also what only one of them said",
    "CreatePublisherWithType CreateSubscriberWithType SubscriberGetsSizes ChecksumSizeDefault " +
    "MetadataSize PublisherOptionsChain SubscriberOptionsChain DefaultMessageGetters",
  ],
  [
    "refusals carry the server's reason",
    "PublisherTypeMismatch MismatchedSubscriberType CreatePublisherThenSubscriberSameType " +
    "CreatePublisherThenSubscriberWrongType CreateSubscriberThenPublisherSameType " +
    "CreateSubscriberThenPublisherWrongType BadPublisherParameters MaxActiveMessagesTooSmall",
  ],
  [
    "a subscriber may come before the first publisher",
    "CreateSubscriberThenPublisher PublishSingleMessagePollAndReadSubscriberFirst " +
    "PublishSingleMessagePollAndReadAfterPlaceholderRead",
  ],
  [
    "a late subscriber reads what is there still",
    "PublishSingleMessagePollAndReadPublisherFirst PublishMultipleMessagePollAndReadPublisherFirst",
  ],
  ["poll and trigger fd of a user are the same eventfd", "FileDescriptors"],
  [
    "impossible sizes of checksums and metadata are refused with the reason",
    "ChecksumSizeTooLarge MetadataSizeTooLarge PrefixSizeInconsistent",
  ],

  // Capacity and limits
  [
    "a refusal for want of slots says who has them",
    "CapacityErrorIdentifiesExistingClients TooManyPublishers TooManySubscribers",
  ],
  [
    "the capacity error of a virtual channel names the users of the whole multiplexer",
    "TooManyVirtualPublishers TooManyVirtualSubscribers",
  ],
  [
    "channels have no more publishers and subscribers than agreed",
    "MaxPublishersOptionLimitsPublisherCount MaxSubscribersOptionLimitsSubscriberCount",
  ],
  ["leases are capacity, which the server keeps", "PublisherLeaseCapacityReservesSubscriberHeadroom"],
  [
    "leases of all virtual channels are capacity of their multiplexer",
    "PublisherLeaseCapacitySumsAcrossVirtualPublishers",
  ],
  ["there are at most 1024 channels, and ids are used again", "DISABLED_PushChannelLimit"],
  ["there are at most 1024 users of a channel", "DISABLED_PushSubscriberLimit"],

  // Reading
  ["a newcomer can read just the newest message", "PublishSingleMessageAndReadNewest"],
  [
    "a slot that is used again has another message to who reads the newest",
    "ReadNewestRecognizesReusedCurrentSlotAsNewGeneration",
  ],
  [
    "who asks for it reads that a publisher is there",
    "PublishSingleMessageAndReadWithActivation ReliablePublisherActivation",
  ],
  [
    "everything that is there is processed at once",
    "PublishSingleMessageAndReadWithCallback ProcessAllMessagesWithoutCallback",
  ],
  ["a message is found by its time, be it read or not, as long as it is there", "FindMessage"],
  ["a message has a byte at least", "PublishZeroSizeFails"],
  ["no more messages are held than agreed, and a release makes room", "Publish2Message2AndReadSharedPtrs"],
  [
    "a message may be held by several, and is let go with the last",
    "PublishSingleMessageAndReadSharedPtr MessageCopyAndMove",
  ],
  ["values travel typed: as JSON, or as protobufs", "PublishSingleMessageAndReadAliasedSharedPtr"],

  // Waiting
  [
    "waits end with the time, with a message, with a signal and with the subscriber",
    "WaitForSubscriberTimeout",
  ],
  [
    "a wait also ends when another fd is readable",
    "WaitForSubscriberWithExtraFd WaitForSubscriberExtraFdFires",
  ],
  [
    "who publishes can wait too: with an end, with another fd, and not at all if nobody may hold it up",
    "WaitForReliablePublisherTimeout WaitForReliablePublisherWithExtraFd " +
    "WaitForUnreliablePublisherFails UnreliablePublisherFileDescriptorAndPollFd " +
    "UnreliablePublisherGetFileDescriptorInvalid",
  ],
  [
    "a poll fd tells of a message that had to wait for a release",
    "ExternalPollLoopGetPollFdOnceReadOnce ExternalPollLoopGetPollFdOnceDrainUntilEmpty",
  ],

  // Reliable channels
  [
    "a reliable publisher waits until its subscriber has read",
    "ReliablePublisher1 ReliablePublisher2 ReliablePublisherNoSubscribersEmptyBuffer " +
    "SlowReliableSubscriberDrainReachesEmptyRead ReliablePublisherBusyFlagTriggerWakeup " +
    "ReliablePublisherBusyFlagTriggerWakeupNotThreadSafe",
  ],
  [
    "an unreliable subscriber does not hold a reliable publisher up",
    "ReliablePublisherDoesNotBlockOnUnreliableSubscriber",
  ],
  ["a slow subscriber of an unreliable channel misses messages, and is told how many", "DroppedMessage"],
  ["drops are counted and told, unless the subscriber does not care", "DroppedMessageDetectionCanBeDisabled"],

  // Growing
  [
    "slots grow in mid-stream, under messages that are held",
    "Resize1 PublishAndResize PublishAndResize2 PublishAndResizeSubscriberFirst " +
    "PublishAndResizeSubscriberConcurrently AttachingPublisherPreservesResizedSlotSize",
  ],
  [
    "a buffer that no slot uses is unmapped, and views of it are empty; one with a message held is not",
    "PublishAndResizeUnmapBuffers",
  ],
  [
    "slots of virtual channels grow together, in mid-stream",
    "PublishVirtualAndResize PublishVirtualAndResizeSubscriberFirst",
  ],
  ["slots grow only with the user's consent", "ResizeCallback ResizeCallbackReturnsError"],
  ["slots of a fixed size do not grow", "ResizeFixedSizePublisherFails"],

  // Virtual channels
  [
    "a subscriber of the multiplexer reads all its virtual channels, and learns their names",
    "CreateVirtualPublisherWithType CreateMultipleVirtualPublisherSameVchan " +
    "CreateMultipleVirtualPublisherDiffVchan CreateVirtualPublisherThenSubscriber " +
    "CreateVirtualSubscriberThenPublisher VirtualPublishSingleMessageAndRead VirtualPublishMultiple",
  ],
  [
    "multiplexers and plain channels are not taken for each other",
    "CreateVirtualPublisherMuxMismatch CreateVirtualPublisherThenSubscriberMuxMismatch",
  ],
  [
    "virtual channels have the sizes of their multiplexer, whoever comes first",
    "VirtualChannelMuxPrefixIsShared VirtualChannelMuxPrefixSubscriberFirst",
  ],
  [
    "all publishers of a channel agree about its arena, those of virtual channels too",
    "PublisherQueueArenaMatchesAcrossVirtualChannels " +
    "PublisherQueueArenaRemainsFixedWithoutPublishers PublisherSubscriberQueueArenaSizeOption",
  ],

  // Subscriber queues
  [
    "a queue that was asked for keeps the newest messages, in order, and what it drops is counted",
    "PublishAndReadWithSubscriberQueue SubscribersUseDifferentQueueSizes " +
    "SubscriberQueueOverflowReportsDroppedMessages",
  ],
  [
    "a queue of the channel's size that overflows costs no message, and no order",
    "ConcurrentQueueReservationOrderDoesNotDropOlderOrdinal " +
    "ExplicitQueueOutOfOrderDoesNotReportDroppedMessage",
  ],
  [
    "an entry left half-written makes a queue refuse, and nobody waits for it",
    "FailedSubscriberQueuePushFallsBackToBitset FailedLeasedPublishQueuePushFallsBackToBitset " +
    "PublisherBufferLeasesUseSubscriberQueue",
  ],
  [
    "messages in queues survive that as many are held as may be",
    "QueueMessageSurvivesMaxActiveMessageRejection",
  ],
  [
    "an activation is nothing unread, and what comes after it is",
    "SubscriberQueuePollDrainHandlesActivationOrdinals",
  ],
  [
    "queues have room as long as the channel's arena has, also that of subscribers that left",
    "SubscriberQueueOverrideExhaustingArenaIsRejected",
  ],
  [
    "a block is not used again while a publisher may still be writing to it",
    "SubscriberQueueReuseWaitsForPublisherTraversal",
  ],
  [
    "free blocks are joined, the best fit is taken, and split if the rest is worth it",
    "SubscriberQueueArenaCoalescesAdjacentBlocks",
  ],
  [
    "a queue that was asked for before there was a channel does not keep its publisher out",
    "SubscriberFirstQueueOverrideSurvivesPlaceholderRemap SubscriberFirstOversizedQueueFallsBackToBitset",
  ],
  [
    "subscribers with queues come and go under traffic, and those who stay miss nothing in between",
    "SubscriberQueueChurnKeepsQueuesIndependent",
  ],

  // Several at once
  [
    "publishers at work at once get their messages through, each in its order",
    "PublishConcurrentlyFromOneClientToOneSubscriber " +
    "PublishConcurrentlyFromOneClientToOneQueuedSubscriber PublishConcurrentlyToOneSubscriber " +
    "PublishConcurrentlyToOneQueuedSubscriber",
  ],
  ["publishers and subscribers come and go while others publish", "RaceBetweenPubAndUnsub"],

  // Leases and retirement
  [
    "a lease that is not published goes back, and others find its slot",
    "ScopedPublisherLeaseReleasesOnDestruction",
  ],
  [
    "leased slots are published in any order, and numbered as they are published",
    "PublisherLeaseMetadataLookupIsThreadSafe",
  ],
  [
    "publishers hear of each slot that every subscriber has read",
    "RetirementTrigger1 RetirementTrigger3 RetirementTrigger4",
  ],
  ["a publisher that overwrites unread messages says so, unless told not to", "RetirementTrigger2"],
  [
    "publishers that want to know hear of slots that a leaving subscriber retired",
    "SubscriberRemovalTriggersServerRetirement",
  ],

  // Split buffers
  [
    "messages in split buffers are read like others, with their metadata and checksums",
    "SplitBuffersPublishWithHandlesAndSeparatePrefix",
  ],
  [
    "a subscriber that was there first learns that buffers are split",
    "PlaceholderSubscriberLearnsSplitBuffersOnReload",
  ],
  [
    "a subscriber that reloads is registered again, whatever became of its control block",
    "PlaceholderSubscriberReloadRebuildsCcbSubscriberCount",
  ],
  [
    "publishers must agree on whether buffers are split, here and over bridges",
    "RejectsMixedSplitBufferPublisherOptions",
  ],
  [
    "memory of an allocator carries messages, and is freed by who made it",
    "SplitBufferCallbacksAllocateMapUnmapAndFreePayloadSlots",
  ],

  // Checksums and metadata
  [
    "a message with a checksum is read, and refused once it was changed",
    "ChecksumVerification ChecksumWithMetadata ChecksumWithMetadataCorruptPayload " +
    "ChecksumWithMetadataCorruptMetadata ChecksumWithMetadataCorruptMetadataPassError",
  ],
  [
    "a checksum of the user's own fills all the room that the channel has for it",
    "ChecksumCallback ChecksumCallbackPassErrors ChecksumCallbackPublisherOnly Checksum20Byte " +
    "LargeChecksumSize",
  ],
  [
    "metadata travels in front of a message, whatever its size",
    "MetadataSmall MetadataExactFit MetadataSpillsToSecondChunk MetadataLargeWithLargeChecksum " +
    "MetadataZero MetadataMultipleMessages MetadataSizeAtMax ChecksumSizeAtMax",
  ],
  [
    "a checksum does not cover what bridges write in front of it, nor the padding behind",
    "ChecksumIgnoresPrefixPadding ChecksumIgnoresPrefixPaddingLargeChecksum",
  ],
  [
    "a cryptographic checksum finds what was changed in message and metadata",
    "Rfc4493Vectors ChecksumAes128CmacWithMetadata ChecksumAes128CmacCorruptPayload " +
    "ChecksumAes128CmacCorruptMetadata ChecksumAes128CmacCorruptMetadataPassError",
  ],

  // Tunnels, callbacks
  [
    "messages that pass on another machine's are marked",
    "TunnelPublisherSetsCrossMachineFlag NonTunnelPublisherDoesNotSetCrossMachineFlag",
  ],
  [
    "a message may be changed, shortened or kept back before it is sent",
    "OnSendCallbackSuccess OnSendCallbackError",
  ],
  [
    "a message may be shortened, skipped or refused before it is read",
    "OnReceiveCallbackSuccess OnReceiveCallbackError OnReceiveCallbackZeroSizeReleasesSlot",
  ],

  // Asking
  [
    "the client says what channels there are, and who uses them",
    "ChannelExistsTrue ChannelExistsFalse GetChannelCountersByName GetChannelCountersByNameNotFound",
  ],
  ["the server can be asked what there is", "GetChannelStatsByName GetChannelStatsAll GetChannelInfoAll"],
  ["the directory is published once after any number of changes", "ChannelDirectory"],
];

/** What has nothing to correspond to here, and why. */
export const withoutCounterpart: readonly (readonly [why: string, reference: string])[] = [
  ["a client is connected from its creation on, and once", "InitTwiceFails CheckConnectedBeforeInit"],
  [
    "callbacks are options, given once",
    "ChecksumCallbackReset DoubleRegisterDroppedMessageCallback UnregisterDroppedMessageCallbackNotRegistered " +
    "DoubleRegisterMessageCallback UnregisterMessageCallbackNotRegistered DoubleRegisterResizeCallback " +
    "UnregisterResizeCallbackNotRegistered",
  ],
  ["about C++ and its libraries", "InetAddressSupportsAbslHash SetDebugDoesNotCrash"],
  [
    "about another build of the reference, with memory that has no names",
    "FailedRegistrationRollsBackNumBuffers",
  ],
  [
    "about plugins of the server, which need a C++ ABI",
    "PublishSingleMessageAndReadWithPlugin HeartbeatPublishes ServerCleanupUsesPluginEndToEnd",
  ],
  ["about bridges between machines", "PublishSingleMessageWithPrefixAndRead"],
];
